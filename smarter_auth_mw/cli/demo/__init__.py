"""``smarter-auth demo``: an embedded database, two bots, a server, and the curl lines to try.

It uses parts of the other commands, and keeps the database between runs.
Begin with :mod:`~smarter_auth_mw.cli.demo.command`.
"""
