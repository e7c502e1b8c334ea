"""`--help`: every command has an example that the command line understands, and every option says what it does."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from smarter_auth_mw.cli import PROGRAM, app

ROOT: Any = typer.main.get_command(app)


def commands(command: Any = ROOT, path: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield path, command
    for name, child in children.items():
        yield from commands(child, f"{path} {name}")


COMMANDS = [pytest.param(*one, id=one[0]) for one in commands() if one[0] != PROGRAM]


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_help_ends_with_an_example_that_is_understood(path: str, command: Any) -> None:
    last = command.help.strip().splitlines()[-1]
    assert last.startswith(f"Example: {path}")
    understood, rest = ROOT, shlex.split(last.removeprefix("Example: "))[1:]
    while hasattr(understood, "resolve_command"):
        context = understood.make_context(PROGRAM, rest, resilient_parsing=True)
        if not context._protected_args + context.args:
            break
        _, understood, rest = understood.resolve_command(context, context._protected_args + context.args)
    understood.make_context(PROGRAM, rest)


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_every_parameter_has_a_help_text_of_its_own(path: str, command: Any) -> None:
    for parameter in command.params:
        assert parameter.help, f"{path} {parameter.name}"
        assert parameter.help.endswith((".", "]")), parameter.help
