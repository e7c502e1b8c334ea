"""The operations of the management API: each calls the write side or the lists, and returns a document.

A handler knows one :class:`~smarter_auth_mw.admin.call.Call`, whose path, query and body are checked already, and
nothing of HTTP. Begin with :mod:`~smarter_auth_mw.admin.handlers.keys`.
"""
