"""API keys bound to each resource, for ASGI and WSGI applications."""

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.connections import connect
from smarter_auth_mw.settings import Settings

__version__ = "0.1.0"
__all__ = ["Settings", "SmarterAuthMiddleware", "__version__", "connect"]
