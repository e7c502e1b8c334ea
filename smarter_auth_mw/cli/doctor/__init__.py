"""``smarter-auth doctor``: check services, settings and an app's routes, and say what to do.

It reads everything it can reach, and changes nothing.
Begin with :mod:`~smarter_auth_mw.cli.doctor.command`.
"""
