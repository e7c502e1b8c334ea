"""Everything that speaks to PostgreSQL: the pool, the statements, notifications, migrations, bulk copies.

It knows SQL and asyncpg, implements the protocols of the rooms below, and takes no decision.
Begin with :mod:`~smarter_auth_mw.postgres.store`; the statements are in ``sql/queries.sql``.
"""
