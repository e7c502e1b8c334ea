"""Run a PostgreSQL of the user's own for ``embedded:``, shared by any number of processes.

It knows processes, directories and locks, and nothing of the schema.
Begin with :mod:`~smarter_auth_mw.postgres.embedded.cluster`, then :mod:`~smarter_auth_mw.postgres.embedded.keeper`.
"""
