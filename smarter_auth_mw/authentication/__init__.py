"""The read side: turns a resource and a token into a decision.

It knows the cache, the decision and the throttle, and never writes to the database.
Begin with :mod:`~smarter_auth_mw.authentication.authenticator`.
"""
