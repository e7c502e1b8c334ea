"""Settings of the middleware, and where each one came from.

It knows the errors and the nouns of the ground floor, and neither a request nor a database.
Begin with :mod:`~smarter_auth_mw.config.settings`.
"""
