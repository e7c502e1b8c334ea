"""A user of the embedded PostgreSQL, as a program: reads a word a line, does it, and answers a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.postgres.embedded.cluster import Cluster


def answer(**values: object) -> None:
    print(json.dumps(values), flush=True)


def forked() -> int:
    """A child that only sleeps; it inherits what a fork inherits."""
    if (pid := os.fork()) == 0:
        signal.pause()
    return pid


def executed() -> int:
    """The same, but another program: nothing is inherited."""
    return subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]).pid


def main() -> None:
    said: list[str] = []
    try:
        cluster = Cluster.start(Path(sys.argv[1]) if sys.argv[1:] else None, progress=said.append)
    except SmarterAuthError as error:
        answer(error=type(error).__name__, message=error.message, hint=error.hint)
        sys.exit(error.exit_code)
    answer(home=str(cluster.home), owner=cluster.url("owner"), runtime=cluster.url("runtime"), said=said)
    for line in sys.stdin:
        match line.strip():
            case "stop":
                cluster.stop()
                answer()
            case "fork":
                answer(pid=forked())
            case "exec":
                answer(pid=executed())


if __name__ == "__main__":
    main()
