"""The read side: a resource and a token in, a decision out.

It knows the cache, the decision and the throttle, and never writes to the database.
Begin with :mod:`~smarter_auth_mw.authentication.authenticator`.
"""
