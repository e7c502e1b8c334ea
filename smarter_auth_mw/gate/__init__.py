"""The forward-auth endpoint: answer a proxy's sub-request with the decision for the original request.

It knows the guard and the headers that each proxy sends.
Begin with :mod:`~smarter_auth_mw.gate.forward_auth`.
"""
