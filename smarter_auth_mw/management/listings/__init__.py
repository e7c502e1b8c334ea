"""Lists of keys, resources, the audit and usage: filtered, in pages, and of one account or of all.

It only reads. Begin with :mod:`~smarter_auth_mw.management.listings.reader`; the filters are in
:mod:`~smarter_auth_mw.management.listings.filters`.
"""

from smarter_auth_mw.management.listings.cursors import CursorError
from smarter_auth_mw.management.listings.filters import (
    AuditFilters,
    KeyFilters,
    Page,
    ResourceFilters,
    UsageFilters,
)
from smarter_auth_mw.management.listings.reader import Listings

__all__ = ["AuditFilters", "CursorError", "KeyFilters", "Listings", "Page", "ResourceFilters", "UsageFilters"]
