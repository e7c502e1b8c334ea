"""The two seed pages, member by member, and their examples as they are printed, with ``await``."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

import smarter_auth_mw
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.errors import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ObjectNotUpdated,
    SmarterAuthError,
)
from smarter_auth_mw.models import ChatBot, ChatBotAPIKey, LLMClient, LLMClientAPIKey, SmarterAuthToken
from tests.support.database import Database


@pytest.fixture(autouse=True)
async def connected(database: Database) -> AsyncIterator[None]:
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=database.manager)):
        yield


async def test_example_of_the_chatbot_page_runs() -> None:
    my_chatbot = await ChatBot.objects.create(name="my-chatbot")
    # Assign an API key to a chatbot
    api_key = await SmarterAuthToken.objects.create(name="example")
    chatbot_api_key = await ChatBotAPIKey.objects.create(chatbot=my_chatbot, api_key=api_key)
    # Query API keys for a chatbot
    keys = await ChatBotAPIKey.objects.filter(chatbot=my_chatbot)
    assert keys == [chatbot_api_key]
    # Retrieve API keys for a chatbot with caching
    api_keys = await ChatBotAPIKey.get_cached_objects(my_chatbot, invalidate=True)
    assert api_keys == [chatbot_api_key]


async def test_example_of_the_llm_client_page_runs() -> None:
    my_llm_client = await LLMClient.objects.create(name="my-llm-client")
    # Assign an API key to an llm_client
    api_key = await SmarterAuthToken.objects.create(name="example")
    llm_client_api_key = await LLMClientAPIKey.objects.create(llm_client=my_llm_client, api_key=api_key)
    # Query API keys for an llm_client
    keys = await LLMClientAPIKey.objects.filter(llm_client=my_llm_client)
    assert keys == [llm_client_api_key]
    # Retrieve API keys for an llm_client with caching
    api_keys = await LLMClientAPIKey.get_cached_objects(my_llm_client, invalidate=True)
    assert api_keys == [llm_client_api_key]


KINDS: list[Any] = [
    pytest.param(ChatBot, ChatBotAPIKey, "chatbot", id="ChatBotAPIKey"),
    pytest.param(LLMClient, LLMClientAPIKey, "llm_client", id="LLMClientAPIKey"),
]


@pytest.mark.parametrize(("owner", "model", "name"), KINDS)
async def test_every_field_of_the_page_is_there(owner: Any, model: Any, name: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    bot = await owner.objects.create(name="mine")
    key, _ = await SmarterAuthToken.objects.create(name="example")
    binding = await model.objects.create(**{name: bot, "api_key": key})
    assert isinstance(binding.id, int)
    assert getattr(binding, name) == bot
    assert getattr(binding, f"{name}_id") == bot.id
    assert binding.api_key == key
    assert binding.api_key_id == key.digest == key.pk
    assert before <= binding.created_at == binding.updated_at
    assert binding.created_at.tzinfo is not None
    assert await getattr(bot, f"{model.__name__.lower()}_set") == [binding]
    assert await getattr(key, f"{model.__name__.lower()}_set") == [binding]


@pytest.mark.parametrize(("owner", "model", "name"), KINDS)
async def test_nested_errors_are_those_of_the_page_in_one_hierarchy(owner: Any, model: Any, name: str) -> None:
    for nested, base in (
        ("DoesNotExist", ObjectDoesNotExist),
        ("MultipleObjectsReturned", MultipleObjectsReturned),
        ("NotUpdated", ObjectNotUpdated),
    ):
        error = getattr(model, nested)
        assert issubclass(error, base)
        assert issubclass(error, SmarterAuthError)
        assert error.__qualname__ == f"{model.__name__}.{nested}"
        assert error is not getattr(owner, nested)
    with pytest.raises(model.DoesNotExist):
        await model.objects.get(id=1)
    bot = await owner.objects.create(name="mine")
    for key_name in ("first", "second"):
        await model.objects.create(**{name: bot, "api_key": await SmarterAuthToken.objects.create(name=key_name)})
    with pytest.raises(model.MultipleObjectsReturned):
        await model.objects.get(**{name: bot})
    gone = await model.objects.filter(**{name: bot}).first()
    twin = await model.objects.get(id=gone.id)
    await twin.delete()
    with pytest.raises(model.NotUpdated):
        await gone.save()


@pytest.mark.parametrize(("owner", "model", "name"), KINDS)
async def test_class_methods_take_what_the_page_says(owner: Any, model: Any, name: str) -> None:
    bot = await owner.objects.create(name="mine")
    assert await model.get_cached_objects(invalidate=False, **{name: bot}) == []
    assert await model.get_cached_objects(False, bot) == []
    assert await model.has_active_api_key(bot) is False
    assert await model.has_active_api_key(**{name: bot}, invalidate=True) is False
    key, _ = await SmarterAuthToken.objects.create(name="example")
    binding = await model.objects.create(**{name: bot, "api_key": key})
    assert await model.get_cached_objects(**{name: bot}) == [binding]
    assert await model.get_cached_objects() == [binding]
    assert await model.has_active_api_key(bot) is True
    assert await model.has_active_api_key(bot, True) is True
    assert list(inspect.signature(model.has_active_api_key).parameters) == [name, "invalidate"]


@pytest.mark.parametrize(("owner", "model", "name"), KINDS)
async def test_updated_at_is_set_whenever_it_is_saved(owner: Any, model: Any, name: str) -> None:
    bot = await owner.objects.create(name="mine")
    binding = await model.objects.create(**{name: bot, "api_key": await SmarterAuthToken.objects.create(name="key")})
    created_at, updated_at = binding.created_at, binding.updated_at
    await binding.save()
    assert binding.created_at == created_at
    assert binding.updated_at > updated_at
    assert (await model.objects.get(id=binding.id)).updated_at == binding.updated_at
