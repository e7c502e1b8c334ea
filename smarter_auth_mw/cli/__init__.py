"""The command line ``smarter-auth``: this module registers each command, runs it, and turns errors into exit codes.

A command reads arguments, calls the write side or a list, and returns a document; commands do not know each other.
Begin with :mod:`~smarter_auth_mw.cli.commands.key`, then :mod:`~smarter_auth_mw.cli.decorator`, which makes commands of
plain functions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from smarter_auth_mw import __version__
from smarter_auth_mw.cli import failures, output
from smarter_auth_mw.cli.attack import command as attack
from smarter_auth_mw.cli.bulk import command as bulk
from smarter_auth_mw.cli.commands import admin, audit, check, config, gate, serve, usage
from smarter_auth_mw.cli.commands import db as database
from smarter_auth_mw.cli.commands import key as keys
from smarter_auth_mw.cli.commands import key_rotation as rotation
from smarter_auth_mw.cli.commands import operator as operators
from smarter_auth_mw.cli.commands import resource as resources
from smarter_auth_mw.cli.decorator import AsJson, FromApp, Globals, command
from smarter_auth_mw.cli.demo import command as demo
from smarter_auth_mw.cli.doctor import command as doctor

PROGRAM = "smarter-auth"

app = typer.Typer(
    help="Manage API keys for individual resources, and serve apps that they protect.",
    epilog="Example: smarter-auth demo",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(database.group, name="db")
app.add_typer(resources.group, name="resource")
app.add_typer(keys.group, name="key")
command(keys.group, "rotate")(rotation.rotate)
command(keys.group, "wait", takes_actor=False)(rotation.wait)
app.add_typer(operators.group, name="operator")
command(app, "check", takes_actor=False)(check.check)
command(app, "config", takes_actor=False)(config.config)
command(app, "attack", takes_actor=False)(attack.run)
command(app, "doctor", takes_actor=False)(doctor.doctor)
app.add_typer(audit.group, name="audit")
command(app, "usage", takes_actor=False)(usage.usage)
command(app, "import")(bulk.import_)
command(app, "export", takes_actor=False)(bulk.export)
app.command("serve")(serve.serve)
app.command("gate")(gate.gate)
app.command("admin")(admin.admin)
app.command("demo")(demo.demo)


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 (Typer's signature)
    if is_asked:
        output.line(f"{PROGRAM} {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
]


@app.callback()
def _globals(
    context: typer.Context,
    *,
    as_json: AsJson = False,
    from_app: FromApp = None,
    _: Version = False,
) -> None:
    context.obj = Globals(as_json, from_app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 refused or not found, 2 wrong usage, 3 not reachable."""
    arguments = sys.argv[1:] if arguments is None else arguments
    output.accept_any_text()
    try:
        output.require_stdout()
        answer = app(arguments, prog_name=PROGRAM, standalone_mode=False)
        if not isinstance(answer, output.Output):
            return answer or 0
        output.show(answer)
        return answer.exit_code
    except Exception as error:
        return failures.report(error, as_json="--json" in arguments)
