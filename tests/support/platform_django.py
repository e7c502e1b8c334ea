"""A Smarter platform in Django, with django-rest-knox, on a PostgreSQL: `python -m tests.support.platform_django URL`.

Its models have the platform's names, so that its tables are made by Django's own schema editor. Each line of JSON on
stdin is ``{ACT: ARGUMENT}`` and answered by one line; what fails is answered by ``{"error": …}``.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from django.conf import settings

from tests.support.knox_django import set_up

APPS = ("account", "drf", "llm_client")


def models() -> dict[str, Any]:
    """The platform's models, made once Django is set up."""
    import uuid

    from django.db import models
    from knox.models import AuthToken

    def model(app: str, named: str, bases: tuple[type, ...] = (models.Model,), **fields: Any) -> Any:
        meta = type("Meta", (), {"app_label": app})
        stamps = {
            "created_at": models.DateTimeField(auto_now_add=True, null=True),
            "updated_at": models.DateTimeField(auto_now=True, null=True),
        }
        return type(named, bases, {"__module__": __name__, "Meta": meta, **stamps, **fields})

    def refers(to: Any, **options: Any) -> Any:
        return models.ForeignKey(to, on_delete=models.CASCADE, **options)

    account = model("account", "Account", account_number=models.CharField(max_length=255, unique=True, null=True))
    profile = model("account", "UserProfile", account=refers(account), user=refers("auth.User"))
    key = model(
        "drf",
        "SmarterAuthToken",
        (AuthToken,),
        key_id=models.UUIDField(default=uuid.uuid4, unique=True),
        name=models.CharField(max_length=255),
        description=models.TextField(null=True),
        last_used_at=models.DateTimeField(null=True),
        is_active=models.BooleanField(default=True),
        user_profile=refers(profile),
    )
    domain = model(
        "llm_client",
        "LLMClientCustomDomain",
        domain_name=models.CharField(max_length=255),
        is_verified=models.BooleanField(null=True),
    )
    bot = model(
        "llm_client",
        "LLMClient",
        name=models.CharField(max_length=255),
        user_profile=refers(profile),
        custom_domain=models.OneToOneField(domain, on_delete=models.CASCADE, null=True),
    )
    binding = model("llm_client", "LLMClientAPIKey", llm_client=refers(bot), api_key=refers(key))
    return {one.__name__: one for one in (account, profile, key, domain, bot, binding)}


class Acts:
    """What people do in the platform."""

    def __init__(self, made: dict[str, Any]) -> None:
        self._models = made

    def make_tables(self, _: Any) -> dict[str, Any]:
        from django.db import connection

        with connection.schema_editor() as editor:
            for one in self._models.values():
                editor.create_model(one)
        return {}

    def make_bot(self, bot_id: int) -> dict[str, Any]:
        from django.contrib.auth.models import User

        user = User.objects.create_user("admin", is_staff=True)
        account = self._models["Account"].objects.create(account_number="3141-5926-5359")
        profile = self._models["UserProfile"].objects.create(account=account, user=user)
        self._models["LLMClient"].objects.create(id=bot_id, name="hr_bot", user_profile=profile)
        return {}

    def bind_new_key(self, name: str) -> dict[str, Any]:
        from knox.models import AuthTokenManager

        profile = self._models["UserProfile"].objects.get()
        key_model = self._models["SmarterAuthToken"]
        manager = AuthTokenManager()
        manager.model = key_model
        key, token = manager.create(profile.user, expiry=None, name=name, user_profile=profile)
        self._models["LLMClientAPIKey"].objects.create(llm_client=self._models["LLMClient"].objects.get(), api_key=key)
        return {"token": token}

    def switch_off(self, name: str) -> dict[str, Any]:
        key = self._models["SmarterAuthToken"].objects.get(name=name)
        key.is_active = False
        key.save()
        return {}

    def use(self, name: str) -> dict[str, Any]:
        """As the platform does on each request: a full save."""
        from django.utils import timezone

        key = self._models["SmarterAuthToken"].objects.get(name=name)
        key.last_used_at = timezone.now()
        key.save()
        return {}

    def let_expire(self, token: str) -> dict[str, Any]:
        """Let the key expire, and knox find it so, which deletes it."""
        from django.utils import timezone
        from knox.auth import TokenAuthentication
        from knox.models import AuthToken
        from rest_framework.exceptions import AuthenticationFailed

        AuthToken.objects.filter(token_key=token[:15]).update(expiry=timezone.now() - timedelta(days=1))
        try:
            TokenAuthentication().authenticate_credentials(token.encode())
        except AuthenticationFailed as error:
            return {"refused": str(error.detail), "left": self._models["LLMClientAPIKey"].objects.count()}
        return {}

    def unbind(self, _: Any) -> dict[str, Any]:
        return {"gone": self._models["LLMClientAPIKey"].objects.all().delete()[0]}

    def dump_and_load(self, path: str) -> dict[str, Any]:
        """Write everything down, forget it, and load it: what refers to others before what it refers to."""
        from django.contrib.auth.models import User
        from django.core import serializers
        from django.core.management import call_command
        from django.db import connection
        from knox.models import AuthToken

        known = [*reversed(self._models.values()), AuthToken, User]
        Path(path).write_text(serializers.serialize("json", [row for one in known for row in one.objects.all()]))
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(one._meta.db_table for one in known)} CASCADE")
        call_command("loaddata", path, verbosity=0)
        return {"bindings": self._models["LLMClientAPIKey"].objects.count()}


def main() -> None:
    for name in APPS:
        sys.modules[name] = application = ModuleType(name)
        application.__path__ = [str(Path(__file__).parent)]
    set_up(sys.argv[1], *APPS)
    acts = Acts(models())
    for line in sys.stdin:
        ((act, argument),) = json.loads(line).items()
        try:
            answer = getattr(acts, act)(argument)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    assert not settings.configured
    main()
