"""The write side: create, bind, rotate and revoke keys; register, protect and remove resources.

It knows transactions and audit rows, but not requests; each public method is one transaction.
Begin with :mod:`~smarter_auth_mw.management.keys`.
"""
