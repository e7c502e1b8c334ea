"""Files that a command makes: nobody else's eyes, never one that is there already, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from smarter_auth_mw.errors import UsageError


class NewFile:
    """A file that is being written; call ``secure`` before what it describes takes effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeps = False
        """Whether it stays, whatever happens from now on."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(f"There is a file {str(path)!r} already.", hint="Name one that is not there.") from None
        except OSError as error:
            raise UsageError(f"The file {str(path)!r} cannot be made: {error.strerror}.") from None
        self.text: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", newline="")

    def secure(self) -> None:
        """See that it is on the disk, name and all; raises UsageError where it is full."""
        try:
            self.text.flush()
            os.fsync(self.text.fileno())
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise UsageError(f"The file {str(self.path)!r} cannot be written: {error.strerror}.") from None


@contextmanager
def new_file(path: str) -> Iterator[NewFile]:
    """A file of mode 0600, which is taken away again if the block fails, unless it ``keeps``."""
    made = NewFile(Path(path))
    try:
        yield made
    except BaseException:
        if not made.keeps:
            made.path.unlink(missing_ok=True)
        raise
    finally:
        made.text.close()
