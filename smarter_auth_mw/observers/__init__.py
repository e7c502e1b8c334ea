"""Watches decisions for usage, audit, traces and counters; an observer never changes a decision and never awaits.

It knows decisions and requests, and passes its batches to a store that it does not open.
Begin with :mod:`~smarter_auth_mw.observers.hub`.
"""
