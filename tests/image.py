"""Build the image by an engine that is here, and start it as the examples do: ``make image``.

It runs as another user than root, on a read-only root file system, without capabilities, and is healthy by itself.
``BASE=IMAGE`` names another base image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
TAG = "smarter_auth:check"
PATIENCE_S = 120
AS_DEPLOYED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
SETTINGS = {
    "SMARTER_AUTH_DATABASE_URL": "postgresql://127.0.0.1:9/none",
    "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}",
}
"""Nobody answers there, and the process is alive all the same."""


def main() -> int:
    """Build each stage that people start, and try it."""
    engine = shutil.which("docker") or shutil.which("podman")
    if engine is None:
        print("There is neither docker nor podman here, so that the image cannot be built.", file=sys.stderr)
        return 1
    base = [f"--build-arg=BASE={os.environ['BASE']}"] if "BASE" in os.environ else []
    for target in ([], ["--target=example"]):
        _run(engine, "build", *base, *target, f"--tag={TAG}", ".")
        user = _run(engine, "image", "inspect", "--format={{.Config.User}}", TAG)
        assert user == "10001:10001", user
        print(_run(engine, "run", "--rm", *AS_DEPLOYED, TAG, "--version"))
        _check_health(engine)
    return 0


def _check_health(engine: str) -> None:
    settings = [f"--env={name}={value}" for name, value in SETTINGS.items()]
    name = _run(engine, "run", "--detach", *AS_DEPLOYED, *settings, TAG)
    try:
        until = time.monotonic() + PATIENCE_S
        while (state := _run(engine, "inspect", "--format={{.State.Health.Status}}", name)) == "starting":
            assert time.monotonic() < until, "It did not become healthy in time."
            time.sleep(1)
        assert state == "healthy", _run(engine, "logs", name)
    finally:
        _run(engine, "rm", "--force", name)


def _run(*command: str) -> str:
    ran = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} failed ({ran.returncode})")
    return ran.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
