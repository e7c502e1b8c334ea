"""All access to PostgreSQL: the pool, the statements, notifications, migrations, bulk copies.

It knows SQL and asyncpg, implements the protocols of the rooms below, and makes no decisions.
Begin with :mod:`~smarter_auth_mw.postgres.store`; the statements are in ``sql/queries.sql``.
"""
