"""A schema as the catalog has it: what must be the same, whichever way it came about."""

from __future__ import annotations

import asyncpg

_CATALOG = """
SELECT 'schema ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname = $1
UNION ALL
SELECT concat_ws(' ', 'relation', relname, relkind, relowner::regrole, reloptions, relacl)
  FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind <> 'i'
UNION ALL
SELECT concat_ws(' ', 'column', relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
                 collname, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum), attacl)
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
  LEFT JOIN pg_collation ON pg_collation.oid = attcollation
 WHERE relnamespace = $1::regnamespace AND attnum > 0 AND NOT attisdropped AND relkind <> 'i'
UNION ALL
SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE connamespace = $1::regnamespace
UNION ALL
SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = $1
UNION ALL
SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(pg_trigger.oid), tgenabled)
  FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
 WHERE relnamespace = $1::regnamespace AND NOT tgisinternal
UNION ALL
SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), proowner::regrole, proacl)
  FROM pg_proc WHERE pronamespace = $1::regnamespace
 ORDER BY 1
"""


async def catalog(connection: asyncpg.Connection, schema: str = "smarter_auth") -> list[str]:
    """Every relation, column, constraint, index, trigger and function of the schema, with owner and rights."""
    return [row[0] for row in await connection.fetch(_CATALOG, schema)]
