"""Fixtures of this room: the pages, on one database for a module."""

from tests.support.pages import module_database, pages

__all__ = ["module_database", "pages"]
