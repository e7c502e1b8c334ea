"""The common options of all commands, and the decorator that makes an ``async`` function a command."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from smarter_auth_mw.cli.output import Output, Stream, show_stream
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.errors import SmarterAuthError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")]
FromApp = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        help="Use the settings and routes of this app's middleware, for example main:app.",
    ),
]
Actor = Annotated[
    str | None, typer.Option("--actor", help="The name written to the audit as the actor.", show_default="the OS user")
]

Function = TypeVar("Function", bound=Callable[..., Coroutine[Any, Any, Any]])


class Globals(NamedTuple):
    """The common options as given in front of the command."""

    as_json: bool = False
    from_app: str | None = None


class InterruptedCommandError(SmarterAuthError):
    """Interrupted."""

    code = "interrupted"
    exit_code = 130  # 128 + SIGINT, as shells count
    default_hint = "A change that was in progress is applied completely or not at all."


def command(group: typer.Typer, name: str | None, *, takes_actor: bool = True) -> Callable[[Function], Function]:
    """Make an ``async`` function a command of ``group``: it gets a session, and its result is printed.

    Without a name, it is called for the group itself if no command of the group follows.

    The function's own parameters are the command's; the common options are added to them. A parameter whose type is
    a dataclass has an option for each of its fields. A function that has shown its document already returns None.
    """

    def register(function: Function) -> Function:
        groups = _option_groups(function)

        def run(
            context: typer.Context, *, as_json: bool, from_app: str | None, actor: str | None = None, **own: Any
        ) -> Output | None:
            if context.invoked_subcommand is not None:
                return None
            given = context.obj or Globals()
            session = Session(from_app or given.from_app, actor, as_json=as_json or given.as_json)
            grouped = {
                name: group(**{field.name: own.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            try:
                with asyncio.Runner() as runner:
                    # When interrupted, the loop may print its own traceback, which helps no one.
                    runner.get_loop().set_exception_handler(lambda _loop, _context: None)
                    document = runner.run(_run(function(session, **own, **grouped), session))
            except KeyboardInterrupt:
                raise InterruptedCommandError() from None
            return Output(document, session.exit_code, as_json=session.as_json)

        command: Any = run  # Typer reads the signature that is set here.
        command.__signature__ = _signature(function, takes_actor=takes_actor)
        if name is None:
            group.callback(invoke_without_command=True, help=inspect.getdoc(function))(command)
        else:
            group.command(name, help=inspect.getdoc(function))(command)
        return function

    return register


async def _run(work: Coroutine[Any, Any, Any], session: Session) -> Any:
    """Run a command, and print its list while its source is still open."""
    answer = await work
    if not isinstance(answer, Stream):
        return answer
    session.exit_code = await show_stream(answer, as_json=session.as_json) or session.exit_code
    return None


def _signature(function: Callable[..., Any], *, takes_actor: bool) -> inspect.Signature:
    common = {"as_json": (AsJson, False), "from_app": (FromApp, None)}
    if takes_actor:
        common["actor"] = (Actor, None)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in common.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    named = [each for parameter in _own(function) for each in _options(parameter)]
    return inspect.Signature([context, *named, *options])


def _own(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the function's parameters behind the session."""
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    return own


def _option_groups(function: Callable[..., Any]) -> dict[str, type[Any]]:
    """Return the dataclass of each parameter that stands for several options."""
    return {one.name: one.annotation for one in _own(function) if _is_group(one.annotation)}


def _is_group(annotation: Any) -> bool:
    return is_dataclass(annotation)


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Return the parameter as Typer reads it: for a dataclass, an option for each of its fields."""
    group = parameter.annotation
    if not _is_group(group):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    types = get_type_hints(group, include_extras=True)
    return [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types[name])
        for name, each in inspect.signature(group).parameters.items()
    ]
