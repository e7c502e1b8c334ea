"""The named statements of ``sql/queries.sql``, and the schema that they work on."""

from __future__ import annotations

from importlib import resources
from typing import Any

import aiosql

SQL = resources.files("smarter_auth_mw.postgres") / "sql"
QUERIES: Any = aiosql.from_str((SQL / "queries.sql").read_text("utf-8"), "asyncpg")
"""The statements of ``queries.sql``, by name."""

SCHEMA = 9
"""The newest schema that this release knows: the number of its last migration."""
