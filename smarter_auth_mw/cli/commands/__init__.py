"""The commands that fit into one module each.

Each function here is one command: it reads arguments, calls the write side or a report, and prints a document.
Begin with :mod:`~smarter_auth_mw.cli.commands.key`.
"""
