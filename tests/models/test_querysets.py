"""Managers and sets of objects as Django has them, and what is not there says so by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import smarter_auth_mw
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.errors import DatabaseError, RefusedError, UsageError
from smarter_auth_mw.models import ChatBot, LLMClient, LLMClientAPIKey, SmarterAuthToken
from smarter_auth_mw.models.base import TimestampedModel
from tests.support.database import Database
from tests.support.platform import Platform

NAMES = ["alpha", "beta", "Gamma"]


@pytest.fixture
async def connected(database: Database) -> AsyncIterator[None]:
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=database.manager)):
        for name in NAMES:
            await SmarterAuthToken.objects.create(name=name, description=f"{name}'s")
        yield


@pytest.mark.usefixtures("connected")
async def test_usual_methods_of_managers_find_what_django_finds() -> None:
    keys = SmarterAuthToken.objects
    assert [key.name for key in await keys.order_by("name")] == ["Gamma", "alpha", "beta"]
    assert [key.name for key in await keys.order_by("-name")] == ["beta", "alpha", "Gamma"]
    assert await keys.exclude(name="beta").order_by("created_at").values_list("name", flat=True) == ["alpha", "Gamma"]
    assert await keys.filter(name__startswith="al").values_list("name", "description") == [("alpha", "alpha's")]
    assert await keys.filter(name__icontains="GAM").values("name") == [{"name": "Gamma"}]
    assert await keys.filter(name__contains="ta").count() == 1
    last = await keys.order_by("name").last()
    assert last is not None
    assert last.name == "beta"
    first = await keys.order_by("name").first()
    assert first is not None
    assert first.name == "Gamma"
    assert [key.name for key in await keys.order_by("name")[1:]] == ["alpha", "beta"]
    assert [key.name for key in await keys.order_by("name")[1:][:1]] == ["alpha"]
    assert (await keys.order_by("name")[1]).name == "alpha"
    with pytest.raises(IndexError):
        await keys.order_by("name")[3]
    assert await keys.exclude(name="beta").count() == await keys.all()[:2].count() == 2
    assert (await keys.in_bulk([first.pk]))[first.pk] == first
    assert set(await keys.in_bulk(field_name="name")) == set(NAMES)


@pytest.mark.usefixtures("connected")
async def test_an_update_writes_all_of_them() -> None:
    keys = SmarterAuthToken.objects
    assert await keys.filter(name__in=["alpha", "beta"]).update(is_active=False) == 2
    assert await keys.filter(is_active=True).values_list("name", flat=True) == ["Gamma"]
    with pytest.raises(UsageError, match="digest"):
        await keys.update(digest="0" * 128)


@pytest.mark.usefixtures("connected")
async def test_what_cannot_be_asked_for_is_refused_by_its_name() -> None:
    with pytest.raises(AttributeError, match="has no annotate: of Django's managers, it has all, filter"):
        SmarterAuthToken.objects.annotate()
    assert not hasattr(SmarterAuthToken.objects, "aggregate")
    for wrong in (
        lambda: SmarterAuthToken.objects.order_by("colour"),
        lambda: SmarterAuthToken.objects.exclude(colour="red"),
        lambda: SmarterAuthToken.objects.all()[-1:],
        lambda: SmarterAuthToken.objects.all()[:1].filter(name="alpha"),
        lambda: SmarterAuthToken.objects.values_list("name", "digest", flat=True),
    ):
        with pytest.raises(UsageError):
            wrong()


@pytest.mark.usefixtures("connected")
async def test_cached_bindings_are_a_set_that_is_filtered_on() -> None:
    bot = await LLMClient.objects.create(name="bot")
    for key in await SmarterAuthToken.objects.exclude(name="beta"):
        await LLMClientAPIKey.objects.create(llm_client=bot, api_key=key)
    cached = LLMClientAPIKey.get_cached_objects(llm_client=bot)
    assert len(await cached) == 2
    assert await cached.filter(api_key__is_active=True).exists()
    assert await cached.filter(api_key__name="alpha").count() == 1
    assert await cached.exclude(api_key__name="alpha").values_list("api_key__name", flat=True) == ["Gamma"]
    assert await LLMClientAPIKey.get_cached_objects().filter(llm_client=bot).count() == 2


@pytest.mark.usefixtures("connected")
async def test_inherited_members_of_the_page_are_there() -> None:
    bot = await ChatBot.objects.create(name="bot")
    assert await ChatBot.get_cached_object(pk=bot.id) == bot
    with pytest.raises(ChatBot.DoesNotExist):
        await ChatBot.get_cached_object(pk=4711)
    assert ChatBot.find_hash(f"https://example.com/bots/{bot.hashed_id}/prompt/?x=relax") == bot.hashed_id
    assert ChatBot.find_hash("https://relax.example.com/rox") is None
    assert ChatBot.hash_regex().fullmatch(str(bot.hashed_id))
    assert (ChatBot.HASH_PREFIX, ChatBot.HASH_SUFFIX, ChatBot.HASH_FLOOR) == ("r", "x", 1_000_000)
    assert (ChatBot.is_billable_resource, SmarterAuthToken.is_billable_resource) == (True, False)
    assert ChatBot.cache_expiration == 0
    bot.validate()
    bot.ref = "other"
    with pytest.raises(UsageError, match="ref"):
        bot.validate()
    assert issubclass(ChatBot.NotUpdated, DatabaseError)


async def test_models_read_the_bindings_of_an_attached_platform(platform: Platform) -> None:
    user = await platform.user("ada")
    bot = await platform.bot("hr", user)
    await platform.bind(bot, await platform.key("theirs", user))
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=platform.database.manager)):
        assert await LLMClientAPIKey.has_active_api_key(bot)
        (binding,) = await LLMClientAPIKey.get_cached_objects(llm_client=bot)
        assert (binding.api_key.name, binding.llm_client_id) == ("theirs", bot)
        assert await LLMClientAPIKey.objects.filter(llm_client=bot) == [binding]
        assert await LLMClientAPIKey.objects.all() == [binding]
        assert await LLMClientAPIKey.objects.count() == 1
        assert await LLMClientAPIKey.objects.filter(llm_client=bot, api_key__is_active=True).exists()
        assert not await LLMClientAPIKey.has_active_api_key(4711)
        assert await LLMClientAPIKey.get_cached_objects(llm_client=4711) == []


@pytest.mark.usefixtures("connected")
async def test_every_model_has_the_cached_objects_of_its_base() -> None:
    bot = await LLMClient.objects.create(name="bot")
    assert await LLMClient.get_cached_objects(invalidate=True) == [bot]
    assert await LLMClient.get_cached_objects().filter(name="bot").count() == 1
    assert await ChatBot.get_cached_objects(True) == []
    assert await SmarterAuthToken.get_cached_objects().order_by("name").values_list("name", flat=True) == sorted(NAMES)
    with pytest.raises(NotImplementedError):
        TimestampedModel.get_cached_objects()
    with pytest.raises(NotImplementedError):
        await TimestampedModel.get_cached_object(pk=1)


async def test_models_agree_about_the_bots_and_keys_of_an_attached_platform(platform: Platform) -> None:
    user = await platform.user("ada")
    bot, free = await platform.bot("hr", user), await platform.bot("free", user)
    digest = await platform.key("theirs", user)
    await platform.bind(bot, digest)
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=platform.database.manager)):
        (binding,) = await LLMClientAPIKey.get_cached_objects(llm_client=bot)
        found = await LLMClient.objects.get(id=bot)
        assert await LLMClient.objects.all() == [found] == [binding.llm_client]
        assert found.name == binding.llm_client.name == "hr"
        assert found.is_protected is binding.llm_client.is_protected is True
        assert await LLMClient.objects.get(name="hr") == await LLMClient.get_cached_object(pk=bot) == found
        assert (await LLMClient.objects.get(id=free)).is_protected is False
        await found.refresh_from_db()
        await binding.refresh_from_db()
        assert await SmarterAuthToken.objects.all() == [binding.api_key]
        assert await SmarterAuthToken.objects.get(name="theirs") == binding.api_key
        assert await SmarterAuthToken.get_cached_object(pk=digest) == binding.api_key
        assert await LLMClientAPIKey.objects.filter(api_key=binding.api_key) == [binding]
        assert await found.llmclientapikey_set == await binding.api_key.llmclientapikey_set == [binding]
        for act in (binding.save, binding.delete, binding.api_key.save, binding.api_key.deactivate, found.delete):
            with pytest.raises(RefusedError, match="belongs to the platform"):
                await act()


async def test_own_bindings_on_an_attached_platform_have_its_bots(platform: Platform) -> None:
    user = await platform.user("ada")
    bot, other = await platform.bot("hr", user), await platform.bot("sales", user)
    await platform.bind(bot, await platform.key("theirs", user))
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=platform.database.manager)):
        ours, _ = await SmarterAuthToken.objects.create(name="ours", account="3141-5926-5359")
        for one in (bot, other):
            await LLMClientAPIKey.objects.create(llm_client=one, api_key=ours)
        assert await LLMClient.objects.count() == len(await LLMClient.objects.all()) == 2
        assert await LLMClientAPIKey.objects.count() == len(await LLMClientAPIKey.objects.all()) == 3
        assert await SmarterAuthToken.objects.count() == len(await SmarterAuthToken.objects.all()) == 2
        names = await LLMClientAPIKey.objects.filter(api_key=ours).values_list("llm_client__name", flat=True)
        assert sorted(names) == ["hr", "sales"]
        with pytest.raises(UsageError, match="Some LLMClientAPIKey objects have no pk"):
            await LLMClientAPIKey.objects.in_bulk()
