"""``smarter-auth attack``: send a server requests that try to bypass its middleware.

It knows spellings and cases, and speaks HTTP over plain sockets.
Begin with :mod:`~smarter_auth_mw.cli.attack.command`.
"""
