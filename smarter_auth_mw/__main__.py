"""The entry point of `smarter-auth` and `python -m smarter_auth_mw`."""

from __future__ import annotations

import sys

MISSING = "error: The command line is not installed. Run: pip install 'smarter_auth_mw[cli]'"


def main() -> int:
    """Run the command line, or say how to install it; returns the exit code."""
    try:
        from smarter_auth_mw import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == __package__:
            raise
        sys.stderr.write(f"{MISSING}\n")
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
