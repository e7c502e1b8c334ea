"""Tables of the reference that are generated from the code each time the site is built."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer
from docutils import nodes
from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from smarter_auth_mw import errors, log
from smarter_auth_mw.admin.operations import OPERATIONS
from smarter_auth_mw.admin.problems import RequestError
from smarter_auth_mw.cli import PROGRAM, app
from smarter_auth_mw.decision import Reason
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.http.rejections import DETAILS
from smarter_auth_mw.metrics.samples import METRICS

Lines = Iterable[str]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def reasons() -> Lines:
    """Every reason for a denial, with the status that the client receives."""
    return table(
        ("reason", "status", "what the client reads"),
        ((f"`{reason}`", str(reason.status), DETAILS[reason.status]) for reason in Reason),
    )


OWN_TABLES = (
    *("revocation", "notifications", "bounds", "capacity", "soak"),
    *("cold_steps", "protocol", "lists", "pages", "admin_load", "path_cost"),
)
"""The parts of ``python -m benchmarks`` that run only if they are named; each has a table of its own."""
NOTED = {"lists": "buffers"}
"""The parts whose notes are shown, since they are the same in every run, and the head of their column."""


def _measured() -> Any:
    return json.loads((Path(__file__).parent / "benchmarks.json").read_text("utf-8"))


def benchmarks() -> Lines:
    """Return what ``make bench`` measured last, and the goals."""
    measured = _measured()
    rows = [row for row in measured["rows"] if row["part"] not in OWN_TABLES]
    yield from table(
        ("what", "median", "least … greatest", "target", "", "in figures"),
        (
            (
                row["what"],
                f"{row['median']:.2f}",
                f"{row['minimum']:.2f} … {row['maximum']:.2f}",
                *_target(row, "for comparison"),
                row["note"],
            )
            for row in rows
        ),
    )
    yield ""
    yield f"Least and greatest are those over {_over(rows)}. Measured with "
    yield ", ".join(f"{name} {number}" for name, number in measured["with"].items()) + "."


def figures(part: str) -> Lines:
    """Return what a part measured last, with the units."""
    rows = [row for row in _measured()["rows"] if row["part"] == part]
    have_targets = any(row["target"] is not None for row in rows)
    yield from table(
        (
            "what",
            "median",
            "least … greatest",
            *(("target", "") if have_targets else ()),
            *filter(None, [NOTED.get(part)]),
        ),
        (
            (
                row["what"],
                f"{_readable(row['median'])} {row['unit']}",
                f"{_readable(row['minimum'])} … {_readable(row['maximum'])}",
                *(_target(row) if have_targets else ()),
                *([row["note"]] if part in NOTED else ()),
            )
            for row in rows
        ),
    )
    yield ""
    yield f"Least and greatest are those over {_over(rows)}: `python -m benchmarks {part} --runs {rows[0]['runs']}`."


def _over(rows: Sequence[dict[str, Any]]) -> str:
    runs = max(row["runs"] for row in rows)
    return "the rounds of one run" if runs == 1 else f"{runs} runs"


def _readable(figure: float) -> str:
    """Return three digits, or all of a greater number's before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def _target(row: dict[str, Any], otherwise: str = "") -> tuple[str, str]:
    if row["target"] is None:
        return otherwise, ""
    return f"{'≥' if row['is_at_least'] else '≤'} {row['target']:,g}", "met" if row["is_met"] else "**missed**"


def failures() -> Lines:
    """Every error that people may meet, by its code in the command line's JSON."""
    found: list[type[SmarterAuthError]] = [SmarterAuthError, *_below(SmarterAuthError)]
    return table(
        ("error", "code", "exit code", "says"),
        (
            (f"`{error.__name__}`", f"`{error.code}`", str(error.exit_code), (error.__doc__ or "").partition("\n")[0])
            for error in found
            if error.__module__ == errors.__name__
        ),
    )


def _below(error: type[SmarterAuthError]) -> Iterator[type[SmarterAuthError]]:
    for one in error.__subclasses__():
        yield one
        yield from _below(one)


def metrics() -> Lines:
    """Every metric, its kind and its labels."""
    return table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                _exposed(metric.name, metric.kind),
                metric.kind,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.help,
            )
            for metric in METRICS.values()
        ),
    )


def _exposed(name: str, kind: str) -> str:
    return f"`smarter_auth_{name}{'_total' if kind == 'counter' else ''}`"


def events() -> Lines:
    """Every line of the log, by the event that it begins with."""
    levels = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR"}
    return table(("event", "level"), ((f"`{event}`", levels[log.level_of(event)]) for event in log.EVENTS))


def command_line() -> Lines:
    """Every command, from its own help."""
    root = typer.main.get_command(app)
    yield from _command(root, None)


def _command(command: Any, parent: Any) -> Iterator[str]:
    context = command.make_context(command.name if parent else PROGRAM, [], parent=parent, resilient_parsing=True)
    path = context.command_path
    children = getattr(command, "commands", {})
    yield from ("", f"## {path}", "", inspect.cleandoc(command.help or ""), "")
    parameters = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if not children or getattr(command, "invoke_without_command", False):
        yield from ("```text", " ".join([path, *command.collect_usage_pieces(context)]), "```", "")
    rows = [record for parameter in parameters if (record := _help(parameter, context))]
    if rows:
        yield from table(("parameter", "meaning"), rows)
    for child in children.values():
        yield from _command(child, context)


def _help(parameter: Any, context: Any) -> tuple[str, str] | None:
    if "--help" in parameter.opts:
        return None
    record = parameter.get_help_record(context)
    if record is None:
        return f"`{parameter.make_metavar(context)}`", parameter.help or ""
    return f"`{record[0].strip()}`", record[1]


def operations() -> Lines:
    """Every operation of the management API, and who may do it."""
    return table(
        ("operation", "does", "role", "body", "answer"),
        (
            (
                f"`{one.method} {one.path}`",
                one.summary + (" (`If-Match`)" if one.is_versioned else ""),
                one.role.value + (", of all accounts" if one.everywhere else ""),
                f"`{one.body.__name__}`" if one.body else "",
                f"`{one.answer.__name__}`" if one.answer is not BaseModel else "",
            )
            for one in OPERATIONS
        ),
    )


def operation_queries() -> Lines:
    """Every query parameter, and the operations that take it."""
    taken: dict[tuple[str, str], list[str]] = {}
    for one in OPERATIONS:
        for name, field in one.query.model_fields.items():
            taken.setdefault((name, field.description or ""), []).append(f"`{one.method} {one.path}`")
    return table(
        ("parameter", "operations", "meaning"),
        ((f"`{name}`", ", ".join(paths), meaning) for (name, meaning), paths in taken.items()),
    )


def problems() -> Lines:
    """Every problem that only the management API answers."""
    return table(
        ("code", "status", "says"),
        (
            (f"`{error.code}`", str(error.status), (error.__doc__ or "").partition("\n")[0])
            for error in RequestError.__subclasses__()
            if error.__module__ == RequestError.__module__
        ),
    )


TABLES: dict[str, Callable[[], Lines]] = {
    make.__name__: make
    for make in (
        *(reasons, benchmarks, failures, metrics, events, command_line),
        *(operations, operation_queries, problems),
    )
} | {part: partial(figures, part) for part in OWN_TABLES}


class FromCode(SphinxDirective):
    """``{from-code} NAME``: the table of this name."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table, made now."""
        return self.parse_text_to_nodes("\n".join(TABLES[self.arguments[0]]()), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_directive("from-code", FromCode)
    return {"parallel_read_safe": True}
