"""Finds the resource that a request names, or refuses a request that can be read in two ways.

It knows paths, hosts and the lines of ROUTES, but not keys, tokens or databases; nothing here waits.
Begin with :mod:`~smarter_auth_mw.routing.routes`, then :mod:`~smarter_auth_mw.routing.by_path`.
"""
