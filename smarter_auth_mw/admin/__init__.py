"""The management API: keys, resources, usage and the audit over HTTP, for programs without a shell and a database URL.

It calls the write side and the lists, as the command line does, and adds no behaviour of its own. Begin with
:mod:`~smarter_auth_mw.admin.operations`, the table from which the router, the OpenAPI document and tests are built.
"""

from smarter_auth_mw.admin.app import AdminApp

__all__ = ["AdminApp"]
