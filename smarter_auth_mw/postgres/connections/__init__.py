"""Open connections to PostgreSQL: which host is the primary, with or without TLS, and what a session asks for.

It knows hosts, URLs and asyncpg's arguments, and nothing of the schema.
Begin with :mod:`~smarter_auth_mw.postgres.connections.connector`.
"""
