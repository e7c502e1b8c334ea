"""What is HTTP about a request: credentials, rejections, peers, WebSocket closing, status pages.

It knows scopes, headers and decisions, and neither routes nor the database.
Begin with :mod:`~smarter_auth_mw.http.credentials`.
"""
