"""The privileges that a database role needs for its grade, and those it lacks, derived from GRANT statements."""

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
    """One privilege on one object; ``kind`` is the object's type, ``column`` is set for a column privilege."""

    verb: str
    kind: str
    object: str
    column: str = ""

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        return f"{self.verb}{column} on {self.object}"


def parse(grant: str) -> Iterator[Privilege]:
    """Yield the single privileges of a grant, for example ``UPDATE (a, b) ON t``."""
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

    A role without a grade, such as a superuser or a member of another role, is compared with what serving needs.
    ``is_inherited``: it can do more than serve only because every role could in earlier releases.
    """

    role: str
    grade: str
    is_inherited: bool
    lacking: list[str]


async def standing(connection: Any) -> Standing:
    """Return the standing of the connection's role."""
    found = await QUERIES.read_role(connection)
    grade = found["grade"] or "runtime"
    return Standing(found["name"], grade, found["is_inherited"], await _lacking(connection, grade))


async def refusal(connection: Any) -> RefusedError:
    """Return the error for a statement that the connection's role may not run."""
    role = (await QUERIES.read_role(connection))["name"]
    return RefusedError(
        f"The role {role} may not do that: only a manager role writes keys, bindings and resources.",
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
