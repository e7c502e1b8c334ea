"""Runs the bundled PostgreSQL for ``embedded:``, shared by any number of processes.

It knows processes, directories and locks, but not the schema.
Begin with :mod:`~smarter_auth_mw.postgres.embedded.cluster`, then :mod:`~smarter_auth_mw.postgres.embedded.keeper`.
"""
