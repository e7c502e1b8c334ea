"""What a database role needs for its grade, and what it lacks: read from the words of GRANT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from smarter_auth_mw.errors import RefusedError
from smarter_auth_mw.postgres.queries import QUERIES

_GRANT = re.compile(r"(?P<verb>\w+)(?: \((?P<columns>[^)]*)\))? ON (?P<kind>[A-Z ]+ )?(?P<objects>.+)")
_KINDS = {"SCHEMA": "schema", "SEQUENCE": "sequence", "FUNCTION": "function"}


class Privilege(NamedTuple):
    """One thing that may be done with one object; ``kind`` is what that is, ``column`` where only one is meant."""

    verb: str
    kind: str
    object: str
    column: str = ""

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.verb}{column} on {self.object}"


def parse(grant: str) -> Iterator[Privilege]:
    """``UPDATE (a, b) ON t``, say, as its single privileges."""
    found = _GRANT.fullmatch(grant)
    if found is None:
        raise ValueError(f"No grant: {grant!r}")
    kind = _KINDS[found["kind"].strip()] if found["kind"] else "table"
    for name in re.split(r",\s*(?![^(]*\))", found["objects"]):
        if found["columns"]:
            yield from (Privilege(found["verb"], "column", name, each) for each in re.split(r",\s*", found["columns"]))
        else:
            yield Privilege(found["verb"], kind, name)


@dataclass(frozen=True, slots=True)
class Standing:
    """A database role: its grade, and the privileges of that grade that it lacks.

    A role that has no grade of its own name, as a superuser or a member of another, is measured by what serving needs.
    ``is_inherited``: it can do more than serve only because every role could once, and nobody has said what is meant.
    """

    role: str
    grade: str
    is_inherited: bool
    lacking: list[str]


async def standing(connection: Any) -> Standing:
    """The standing of the role that the connection works as."""
    found = await QUERIES.read_role(connection)
    grade = found["grade"] or "runtime"
    return Standing(found["name"], grade, found["is_inherited"], await _lacking(connection, grade))


async def refusal(connection: Any) -> RefusedError:
    """Return what to say when the role that the connection works as may not do what was asked."""
    role = (await QUERIES.read_role(connection))["name"]
    return RefusedError(
        f"The role {role} may not do that: keys, bindings and resources are written by a manager role.",
        hint="Name such a role in SMARTER_AUTH_DATABASE_URL. To make this one a manager, run as the schema's owner:"
        f" smarter-auth db migrate --manager-role {role}",
    )


async def _lacking(connection: Any, grade: str) -> list[str]:
    asked = [each async for row in QUERIES.list_privileges(connection, grade=grade) for each in parse(row["privilege"])]
    found = QUERIES.find_lacking(
        connection,
        verbs=[each.verb for each in asked],
        kinds=[each.kind for each in asked],
        objects=[each.object for each in asked],
        columns=[each.column for each in asked],
    )
    return [str(Privilege(*row)) async for row in found]
