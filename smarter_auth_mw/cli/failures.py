"""Whatever goes wrong, as one clear line that says what to do, or as JSON; never as a traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from pathlib import Path

import typer

from smarter_auth_mw.cli import output
from smarter_auth_mw.errors import ConfigurationError, SmarterAuthError, UsageError

_SECRET = re.compile(r"\b([0-9A-Za-z]{4})[0-9A-Za-z]{60,}\b")


class UnexpectedError(SmarterAuthError):
    """This should not have happened."""

    code = "unexpected"
    default_hint = "Please report it, with the command that you ran: it is a mistake in smarter_auth_mw."


class OutputError(SmarterAuthError):
    """The result could not be printed."""

    code = "output"
    default_hint = "What the command was to do is done."


def report(error: Exception, *, as_json: bool) -> int:
    """Tell what went wrong; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        _forget_stdout()  # Whoever read our output has seen enough: `smarter-auth key list | head`.
        return 1
    explained = explain(error)
    message, hint = _masked(_message(explained)), _masked(explained.hint)
    if as_json:
        output.line(output.to_json({"error": {"code": explained.code, "message": message, "hint": hint}}))
    else:
        _tell(message, hint)
    return explained.exit_code


def explain(error: Exception) -> SmarterAuthError:
    """Whatever was raised, as an error that people can act on."""
    if isinstance(error, SmarterAuthError):
        return error
    if isinstance(error, typer.TyperException):
        return UsageError(error.format_message(), hint=_help_of(error))
    return UnexpectedError(f"{type(error).__name__}: {error} ({_place(error)})")


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


def _masked(text: str) -> str:
    """The text less whatever may be a token that somebody put where none belongs."""
    return _SECRET.sub(r"\1…", text)


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"


def _forget_stdout() -> None:
    # Python flushes stdout once more when it ends, and would complain about the same pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
