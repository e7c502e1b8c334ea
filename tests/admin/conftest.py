"""Fixtures of this room: the API, an admin, and the write side beside them."""

from tests.support.admin import admin, site, writes

__all__ = ["admin", "site", "writes"]
