"""A Django with django-rest-knox on a PostgreSQL, as a program: ``python -m tests.support.knox_django URL``.

It migrates knox's tables, then answers each line of JSON on stdin with one. ``{"create": NAME}`` makes a user with a
token, by knox's own manager; ``{"authenticate": HEADER}`` asks knox's own ``TokenAuthentication``.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django
from django.conf import settings
from django.core.management import call_command


def set_up(url: str, *more: str) -> None:
    """Let Django have the database, and its tables in it; ``more`` are other applications that it is to know."""
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": parts.username,
        "HOST": asked["host"][0],
        "PORT": asked["port"][0],
    }
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "knox", *more]
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=apps, USE_TZ=True, SECRET_KEY="test")
    django.setup()
    call_command("migrate", verbosity=0)


def create(name: str) -> dict[str, Any]:
    """A user, and a token that knox makes for them."""
    from django.contrib.auth import get_user_model
    from knox.models import AuthToken

    user = get_user_model().objects.create_user(name)
    row, token = AuthToken.objects.create(user)
    return {"user_id": user.pk, "token": token, "digest": row.digest, "token_key": row.token_key}


def authenticate(header: str) -> dict[str, Any]:
    """Whom knox finds behind a request with this header."""
    from knox.auth import TokenAuthentication
    from rest_framework.exceptions import AuthenticationFailed
    from rest_framework.test import APIRequestFactory

    request = APIRequestFactory().get("/", HTTP_AUTHORIZATION=header)
    try:
        user, _ = TokenAuthentication().authenticate(request)
    except AuthenticationFailed as error:
        return {"refused": str(error.detail)}
    return {"user": user.get_username()}


def main() -> None:
    set_up(sys.argv[1])
    for line in sys.stdin:
        ((act, value),) = json.loads(line).items()
        print(json.dumps({"create": create, "authenticate": authenticate}[act](value)), flush=True)


if __name__ == "__main__":
    main()
