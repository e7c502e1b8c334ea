"""What the running role is to be granted, and whether it is: read back from the words of GRANT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from smarter_auth_mw.postgres.queries import QUERIES

_GRANT = re.compile(r"(?P<verb>\w+)(?: \((?P<columns>[^)]*)\))? ON (?P<kind>[A-Z ]+ )?(?P<objects>.+)")
_KINDS = {"SCHEMA": "schema", "SEQUENCE": "sequence", "FUNCTION": "function", "ALL TABLES IN SCHEMA": "tables"}


class Privilege(NamedTuple):
    """One thing that may be done with one object; ``kind`` is what that is, ``column`` where only one is meant."""

    verb: str
    kind: str
    object: str
    column: str = ""

    def __str__(self) -> str:
        column = f" ({self.column})" if self.column else ""
        what = "all tables of " if self.kind == "tables" else ""
        return f"{self.verb}{column} on {what}{self.object}"


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


async def lacking(connection: Any) -> list[str]:
    """Those that the connection's role does not have, in words."""
    asked = [each async for row in QUERIES.list_privileges(connection) for each in parse(row["privilege"])]
    found = QUERIES.find_lacking(
        connection,
        verbs=[each.verb for each in asked],
        kinds=[each.kind for each in asked],
        objects=[each.object for each in asked],
        columns=[each.column for each in asked],
    )
    return [str(Privilege(*row)) async for row in found]
