"""Find the resource that a request names, or refuse a request that can be read two ways.

It knows paths, hosts and the lines of ROUTES, and nothing of keys, tokens or databases; nothing here waits.
Begin with :mod:`~smarter_auth_mw.routing.routes`, then :mod:`~smarter_auth_mw.routing.by_path`.
"""
