"""Reports errors as one clear line that says what to do, or as JSON; never as a traceback."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path

import typer

from smarter_auth_mw.cli import descriptors, output
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError, UsageError
from smarter_auth_mw.tokens import hidden

_FULL = (errno.ENOSPC, errno.EDQUOT)


class UnexpectedError(SmarterAuthError):
    """An unexpected error occurred."""

    code = "unexpected"
    default_hint = "This is a bug in smarter_auth_mw. Please report it, with the command that you ran."


def report(error: Exception, *, as_json: bool) -> int:
    """Report the error; returns the exit code."""
    if isinstance(error, output.ClosedPipeError):
        output.forget_stdout()
        return 1  # The reader closed the pipe, as in `smarter-auth key list | head`.
    explained = explain(error)
    if isinstance(explained, output.OutputError):
        output.forget_stdout()
        as_json = False  # A document could not be printed either.
    message, hint = hidden(_message(explained)), hidden(explained.hint)  # People put tokens in the wrong places.
    if as_json:
        output.line(output.to_json({"error": {"code": explained.code, "message": message, "hint": hint}}))
    else:
        _tell(message, hint)
    return explained.exit_code


def explain(error: Exception) -> SmarterAuthError:
    """Turn any exception into an error that people can act on."""
    if isinstance(error, SmarterAuthError):
        return error
    if isinstance(error, typer.TyperException):
        return UsageError(error.format_message(), hint=_help_of(error))
    if isinstance(error, OSError) and error.errno in _FULL:
        return output.OutputError(f"The output could not be written: {error.strerror}.", hint="")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return SmarterAuthError(f"{error.strerror}.", hint=descriptors.HINT)
    # Its text is left out, since an unknown exception may quote secrets.
    return UnexpectedError(f"{type(error).__name__} {_place(error)}")


def _message(error: SmarterAuthError) -> str:
    if isinstance(error, ConfigurationError) and len(error.mistakes) == 1:
        return str(error.mistakes[0])
    return error.message


def _tell(message: str, hint: str) -> None:
    first, *more = message.splitlines() or [""]
    if hint and not more:
        first = f"{first if first.endswith(('.', '!', '?')) else first + '.'} {hint}"
    output.note(f"error: {first}")
    for text in more:
        output.note(text)
    if hint and more:
        output.note(hint)


def _help_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"See: {context.command_path} --help" if context is not None else ""


PACKAGE = Path(__file__).parents[1]


def _place(error: Exception) -> str:
    """Return the innermost place of the traceback, and the innermost one in this package."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
    places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*frames[-1:], *ours[-1:]))
    return f"in {', from '.join(places)}"
