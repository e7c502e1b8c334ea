"""The management API: keys, resources, usage and the audit over HTTP, for programs without a shell and a database URL.

It calls the write side and the lists, as the command line does, and knows nothing that these do not do. Begin with
:mod:`~smarter_auth_mw.admin.operations`, the one table that router, OpenAPI document and tests are made of.
"""

from smarter_auth_mw.admin.app import AdminApp

__all__ = ["AdminApp"]
