"""Files that a command creates: private, never overwriting a file, complete or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from smarter_auth_mw.errors import SmarterAuthError, UsageError


class UnwrittenFileError(SmarterAuthError):
    """A file could not be written, so nothing that it was to hold was done."""

    code = "file_not_written"
    default_hint = "Nothing was changed. Free some space, or name a file on another disk."

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"The file {str(path)!r} cannot be written: {error.strerror}.")


class _Disk(io.FileIO):
    """A file whose errors name it: around a database, an OSError would look like a lost connection."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor, "w")
        self._path = path

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            raise UnwrittenFileError(self._path, error) from None


class NewFile:
    """A file that is being written; call ``secure`` before its content takes effect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeps = False
        """True if the file is kept even if the block fails."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise UsageError(
                f"The file {str(path)!r} already exists.", hint="Name a file that does not exist yet."
            ) from None
        except OSError as error:
            raise UsageError(f"The file {str(path)!r} cannot be created: {error.strerror}.") from None
        self.text: TextIO = io.TextIOWrapper(io.BufferedWriter(_Disk(descriptor, path)), encoding="utf-8", newline="")

    def secure(self) -> None:
        """Sync the file and its directory entry to disk; raises UnwrittenFileError if the disk is full."""
        try:
            self.text.flush()
            os.fsync(self.text.fileno())
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise UnwrittenFileError(self.path, error) from None


@contextmanager
def new_file(path: str) -> Iterator[NewFile]:
    """Create a file of mode 0600, which is removed if the block fails, unless it ``keeps``."""
    made = NewFile(Path(path))
    try:
        yield made
    except BaseException:
        if not made.keeps:
            made.path.unlink(missing_ok=True)
        raise
    finally:
        made.text.close()
