"""API keys bound to each resource, for ASGI and WSGI applications."""

__version__ = "0.1.0"
