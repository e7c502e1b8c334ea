"""Settings of the middleware, and where each one came from.

It knows errors and domain types, and neither requests nor the database.
Begin with :mod:`~smarter_auth_mw.config.settings`.
"""
