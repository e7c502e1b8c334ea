"""Opens connections to PostgreSQL: finds the primary, negotiates TLS, and sets session parameters.

It knows hosts, URLs and asyncpg's arguments, but not the schema.
Begin with :mod:`~smarter_auth_mw.postgres.connections.connector`.
"""
