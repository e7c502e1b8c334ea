"""Keep what was read of each resource, and invalidate it as soon as a newer change is known.

It knows entries, snapshots, changes and shared backends; the postgres room implements the protocols that it reads from.
Begin with :mod:`~smarter_auth_mw.cache.entries`, then :mod:`~smarter_auth_mw.cache.changes`.
docs/explanation/bound.md says why.
"""
