"""``smarter-auth demo``: an embedded database, two bots, a server, and the curl lines to try.

It knows the other commands' parts, and keeps what the last run made.
Begin with :mod:`~smarter_auth_mw.cli.demo.command`.
"""
