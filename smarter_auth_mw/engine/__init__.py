"""The engine of one event loop: pool, cache, listener and authenticator, assembled once and closed with the loop.

It knows how the parts fit together, and nothing of HTTP.
Begin with :mod:`~smarter_auth_mw.engine.assembly`.
"""
