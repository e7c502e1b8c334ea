"""A Django project in one file, its bots protected, as ASGI (``app``) and as WSGI (``wsgi_app``).

export SMARTER_AUTH_DATABASE_URL=embedded: SMARTER_AUTH_ROUTES='bot /bots/{ref:int}'
smarter-auth db migrate
smarter-auth key create --name my-first-key --bind bot:1
uvicorn --app-dir examples django_app:app              # or:
gunicorn --chdir examples --preload --workers 2 django_app:wsgi_app
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

# Your settings.py has this already; the middleware reads none of it.
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret in an example")


def decision_of(request: HttpRequest) -> Any:
    """The middleware's decision: in the scope under ASGI, in the environ under WSGI."""
    return request.scope["smarter_auth"] if hasattr(request, "scope") else request.META["smarter_auth.decision"]


def describe(request: HttpRequest, bot: int) -> JsonResponse:
    """Say who is asking; ``request.user`` stays Django's own."""
    decision = decision_of(request)
    return JsonResponse({"resource": str(decision.resource), "bot": bot, "key_id": decision.key_id})


def health(_: HttpRequest) -> JsonResponse:
    """Not a resource: no line of ROUTES matches its path."""
    return JsonResponse({"status": "ok"})


urlpatterns = [path("bots/<int:bot>", describe), path("health", health)]

# In asgi.py, and in wsgi.py; outside Django's own middleware, which sees granted requests only.
app = SmarterAuthMiddleware(get_asgi_application())
wsgi_app = SmarterAuthWSGIMiddleware(get_wsgi_application())
