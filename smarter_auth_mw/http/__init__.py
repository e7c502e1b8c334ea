"""The HTTP part of a request: credentials, rejections, peers, WebSockets, status pages.

It knows scopes, headers and decisions, and neither routes nor the database.
Begin with :mod:`~smarter_auth_mw.http.credentials`.
"""
