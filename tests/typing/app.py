"""An app that uses every public name, for the eyes of type checkers: nothing here is run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI
from starlette.requests import Request

from smarter_auth_mw import Settings, SmarterAuthMiddleware, __version__, connect
from smarter_auth_mw.access_log import JsonLines, WithoutFloods, WithoutTokens
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Reason, decide
from smarter_auth_mw.domain import Bindings, Principal, Resource
from smarter_auth_mw.errors import (
    ConfigurationError,
    ConflictError,
    DatabaseError,
    InvalidReferenceError,
    Mistake,
    MultipleObjectsReturned,
    NoEventLoopError,
    NotFoundError,
    ObjectDoesNotExist,
    ObjectNotUpdated,
    OutOfScopeError,
    OverloadedError,
    RefusedError,
    SchemaError,
    SmarterAuthError,
    UnavailableError,
    UnknownKindError,
    UsageError,
    WouldOpenError,
)
from smarter_auth_mw.fastapi import NoDecisionError, optional_key, optional_key_by, require_key, require_key_by
from smarter_auth_mw.metrics import SmarterAuthCollector
from smarter_auth_mw.models import ChatBot, ChatBotAPIKey, LLMClient, LLMClientAPIKey, SmarterAuthToken, acting_as
from smarter_auth_mw.signals import authentication_failure, authentication_request, authentication_success
from smarter_auth_mw.testing import AuthKit, TestKey
from smarter_auth_mw.wsgi import SmarterAuthWSGIMiddleware

settings = Settings(database_url="postgresql://localhost/bots", routes=["bot /bots/{ref:int}"])
app = FastAPI()
app.add_middleware(SmarterAuthMiddleware, settings=settings)


@app.get("/bots/{bot_id}")
def answer(bot_id: int, grant: Grant = Depends(require_key)) -> dict[str, str]:  # noqa: B008
    principal: Principal = grant.principal
    resource: Resource = grant.resource
    return {"bot": str(bot_id), "key": principal.key_name, "kind": resource.kind}


@app.get("/bots/{bot_id}/open")
def answer_openly(grant: Grant | None = Depends(optional_key)) -> str:  # noqa: B008
    return "anonymous" if grant is None else grant.key_id


def described(decision: Decision) -> str:
    """Every decision is one of three: a checker says when a case is missing."""
    match decision:
        case Grant():
            return decision.account
        case Anonymous():
            return str(decision.resource)
        case Denial():
            return Reason(decision.reason).value


async def of_request(request: Request) -> Decision:
    decision: Decision = request.scope["smarter_auth"]
    return decision


async def mint() -> None:
    async with connect(settings, actor="billing"):
        with acting_as("alice"):
            bot = await ChatBot.objects.create(name="sales")
            client = await LLMClient.objects.create(name="gpt")
            created = await SmarterAuthToken.objects.create(name="laptop")
            await ChatBotAPIKey.objects.create(chatbot=bot, api_key=created.key)
            await LLMClientAPIKey.objects.create(llm_client=client, api_key=created.key)


def watch(sender: Any, **_: Any) -> None:
    print(sender)


for signal in (authentication_request, authentication_success, authentication_failure):
    signal.connect(watch)


def test_bot(client: Any) -> None:
    with AuthKit(["bot /bots/{ref:int}"]) as kit:
        key: TestKey = kit.mint("bot:1", expires_in=timedelta(days=1))
        client.get("/bots/1", headers=key.headers)
        grant: Grant = kit.assert_granted(key)
        assert grant.key_id == str(key.key_id)


def wrapped(wsgi_app: Any) -> SmarterAuthWSGIMiddleware:
    try:
        return SmarterAuthWSGIMiddleware(wsgi_app, settings)
    except (ConfigurationError, UnavailableError) as error:
        refused: SmarterAuthError = error
        raise SystemExit(refused.hint) from error


def advice(error: SmarterAuthError) -> str:
    """Every error has a code, an exit code and perhaps a hint; some say more."""
    match error:
        case ConfigurationError():
            mistakes: tuple[Mistake, ...] = error.mistakes
            return ", ".join(mistake.variable for mistake in mistakes)
        case WouldOpenError():
            opened: Sequence[Resource] = error.opened
            return str(opened)
        case ConflictError() | OutOfScopeError() | MultipleObjectsReturned() | RefusedError():
            return "refused"
        case ObjectDoesNotExist() | ObjectNotUpdated() | NotFoundError() | DatabaseError():
            return "not found"
        case InvalidReferenceError() | UnknownKindError() | NoDecisionError() | UsageError():
            return error.hint or error.message
        case SchemaError() | OverloadedError() | NoEventLoopError() | UnavailableError():
            return f"{error.code} {error.exit_code}"
    return __version__


def is_open(bindings: Bindings) -> bool:
    return isinstance(decide(bindings, None, datetime.now(UTC).timestamp()), Anonymous)


REQUIRED, OPTIONAL = Depends(require_key_by("bearer", realm="bots")), Depends(optional_key_by("token", "x-api-key"))


@app.get("/bots/{bot_id}/ways")
def answer_by_some_ways(grant: Grant = REQUIRED, other: Grant | None = OPTIONAL) -> str:
    return grant.key_id if other is None else other.key_id


ADMIN = AdminApp(settings, app=app)
COLLECTOR, FILTER, FLOODS = SmarterAuthCollector(), WithoutTokens(), WithoutFloods()
LINES: logging.Formatter = JsonLines()
