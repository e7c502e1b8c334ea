"""API keys bound to each resource, for ASGI and WSGI applications.

Apps import from here and from the modules next to this one; the folders are rooms, which only import from floors below
their own. Begin with :mod:`~smarter_auth_mw.asgi`, then :mod:`~smarter_auth_mw.guard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.config.settings import Settings

if TYPE_CHECKING:
    from smarter_auth_mw.model_sessions import connect

__version__ = "0.2.0"
__all__ = ["Settings", "SmarterAuthMiddleware", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    """Import ``connect`` and what it needs on first use, since only scripts need it (PEP 562)."""
    if name != "connect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smarter_auth_mw.model_sessions import connect

    return connect
