"""The pages of the admin: the same operations as the API's, for people, as HTML that works without JavaScript.

They call operations directly, within the operator's role and account, and never the API over HTTP. Begin with
:mod:`~smarter_auth_mw.admin.pages.table`, the table of all pages. Templates and static files lie next to this package.
Needs Jinja2, which the extra ``admin`` installs; other rooms import this one only if Jinja2 is installed.
"""
