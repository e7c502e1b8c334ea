"""Django peers to compare with: django-rest-knox and djangorestframework-api-key, each in front of a view that says ok.

A WSGI app for gunicorn, on the PostgreSQL of ``BENCHMARK_DJANGO_URL``. ``python -m benchmarks.django_peers`` creates
the tables, and prints the headers that open ``/knox/`` and ``/api-key/``, as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

URL, KEPT = "BENCHMARK_DJANGO_URL", "BENCHMARK_DJANGO_KEEPS_CONNECTIONS"


def set_up() -> None:
    parts = urlsplit(os.environ[URL])
    asked = parse_qs(parts.query)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username,
        "HOST": asked["host"][0],
        "PORT": asked["port"][0],
        "CONN_MAX_AGE": None if os.environ.get(KEPT) else 0,  # Django's default is a connection for each request.
    }
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "rest_framework_api_key", "knox"]
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": database},
        INSTALLED_APPS=apps,
        ROOT_URLCONF=__name__,
        SECRET_KEY="benchmark",
        USE_TZ=True,
    )
    django.setup()


set_up()

from knox.auth import TokenAuthentication  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from rest_framework_api_key.permissions import HasAPIKey  # noqa: E402


def ok() -> HttpResponse:
    return HttpResponse(b"ok", headers={"content-length": "2"})


class KnoxView(APIView):  # type: ignore[misc]  # It has no types.
    authentication_classes = (TokenAuthentication,)
    permission_classes = (IsAuthenticated,)

    def get(self, _: Any) -> HttpResponse:
        return ok()


class ApiKeyView(APIView):  # type: ignore[misc]
    authentication_classes = ()
    permission_classes = (HasAPIKey,)

    def get(self, _: Any) -> HttpResponse:
        return ok()


urlpatterns = [path("knox/", KnoxView.as_view()), path("api-key/", ApiKeyView.as_view())]
application = get_wsgi_application()


def main() -> None:
    from django.contrib.auth import get_user_model
    from knox.models import AuthToken
    from rest_framework_api_key.models import APIKey

    call_command("migrate", verbosity=0)
    _, token = AuthToken.objects.create(get_user_model().objects.create_user("benchmark"))
    _, key = APIKey.objects.create_key(name="benchmark")
    print(json.dumps({"knox": f"authorization: Token {token}", "api-key": f"authorization: Api-Key {key}"}))


if __name__ == "__main__":
    main()
