"""``smarter-auth import`` and ``export``: CSV in and out, with a progress bar.

It knows files and lines; the copying is in :mod:`smarter_auth_mw.postgres.bulk`.
Begin with :mod:`~smarter_auth_mw.cli.bulk.command`.
"""
