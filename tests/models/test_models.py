"""The models as people use them: managers, filters, writes, what is refused, and what an outage does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

import smarter_auth_mw
from smarter_auth_mw.config.settings import DatabaseSettings
from smarter_auth_mw.domain import Protection, Resource
from smarter_auth_mw.errors import ConflictError, NotFoundError, RefusedError, UnavailableError, UsageError
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.model_sessions import ModelSession, current
from smarter_auth_mw.models import ChatBot, ChatBotAPIKey, LLMClient, LLMClientAPIKey, SmarterAuthToken, querysets
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.database import Database

PATIENCE_S = 30
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
async def connected(database: Database) -> AsyncIterator[None]:
    async with smarter_auth_mw.connect(DatabaseSettings(database_url=database.manager)):
        yield


async def make_key(name: str = "key", **fields: Any) -> SmarterAuthToken:
    return (await SmarterAuthToken.objects.create(name=name, **fields)).key


async def make_binding(name: str = "key", bot: LLMClient | None = None) -> LLMClientAPIKey:
    bot = bot or await LLMClient.objects.create(name="mine")
    return await LLMClientAPIKey.objects.create(llm_client=bot, api_key=await make_key(name))


# Bots and LLM clients


async def test_bot_gets_its_number_as_its_reference(keys: Management) -> None:
    bot = await ChatBot.objects.create(name="mine")
    assert bot.ref == str(bot.id)
    assert bot.resource == Resource("chatbot", str(bot.id))
    assert (bot.name, bot.account, bot.is_protected) == ("mine", "default", False)
    assert (await keys.resource(bot.resource)).name == "mine"


async def test_bots_that_are_made_at_once_have_numbers_of_their_own(keys: Management) -> None:
    for taken in range(1, 8):
        await keys.add_resource(Resource("chatbot", str(taken)))
    bots = await asyncio.gather(*(ChatBot.objects.create(name="mine") for _ in range(10)))
    assert len({bot.id for bot in bots} | set(range(1, 8))) == 17


async def test_bot_is_found_by_the_reference_that_requests_use(keys: Management) -> None:
    await keys.add_resource(Resource("chatbot", "42"), name="theirs")
    assert (await ChatBot.objects.get(id=42)).name == "theirs"
    assert (await ChatBot.objects.get(id="42")).id == 42
    assert (await ChatBot.objects.get(pk=42)).ref == "42"
    assert not await LLMClient.objects.filter(id=42).exists()


async def test_bot_with_a_slug_has_no_number(keys: Management) -> None:
    await keys.add_resource(Resource("chatbot", "support"))
    bot = await ChatBot.objects.get(ref="support")
    assert (bot.id, bot.hashed_id, bot.record_locator, bot.ready) == (None, None, None, True)
    binding = await ChatBotAPIKey.objects.create(chatbot=bot, api_key=await make_key())
    assert binding.chatbot_id is None
    assert await bot.chatbotapikey_set == [binding]


async def test_bot_is_made_with_the_reference_that_it_has_elsewhere() -> None:
    assert (await ChatBot.objects.create(id=42)).ref == "42"
    assert (await ChatBot.objects.create(ref="support", domain="bot.example.com")).domain == "bot.example.com"
    with pytest.raises(ConflictError, match="chatbot:42"):
        await ChatBot.objects.create(id=42)
    for wrong in ({"ref": "042"}, {"ref": "a/b"}, {"id": -1}, {"id": 1, "ref": "2"}):
        with pytest.raises(UsageError, match="reference"):
            await ChatBot.objects.create(**wrong)
    assert await ChatBot.objects.count() == 2


async def test_saving_writes_what_was_changed_and_nothing_else() -> None:
    bot = await ChatBot.objects.create(name="mine", on_error="deny")
    twin = await ChatBot.objects.get(id=bot.id)
    twin.domain = "bot.example.com"
    await twin.save()
    bot.name = "ours"
    await bot.save()
    assert (bot.name, bot.domain, bot.on_error) == ("ours", "bot.example.com", "deny")
    assert bot.updated_at is not None
    assert bot.created_at is not None
    assert bot.updated_at > bot.created_at


async def test_saving_some_fields_leaves_the_others_alone() -> None:
    bot = await ChatBot.objects.create(name="mine")
    bot.name, bot.domain = "ours", "bot.example.com"
    await bot.save(update_fields=["name"])
    assert (await ChatBot.objects.get(id=bot.id)).domain is None


async def test_new_object_is_saved_by_save_too() -> None:
    bot = ChatBot(name="mine")
    with pytest.raises(UsageError, match="never saved"):
        _ = bot.resource
    await bot.save()
    assert bot.ready
    binding = ChatBotAPIKey(chatbot=bot, api_key=await make_key())
    await binding.save()
    assert await ChatBotAPIKey.objects.get(id=binding.id) == binding


async def test_what_was_never_saved_is_not_deleted_and_knows_what_it_is_made_from() -> None:
    with pytest.raises(ChatBot.DoesNotExist, match="never saved"):
        await ChatBot(name="mine").delete()
    with pytest.raises(TypeError, match="takes chatbot, chatbot_id, api_key, api_key_id, not colour"):
        ChatBotAPIKey(colour="red")


async def test_what_a_record_is_known_by_cannot_be_changed() -> None:
    binding = await make_binding()
    bot = binding.llm_client
    bot.id = 4711
    with pytest.raises(UsageError, match="id of a LLMClient cannot be changed"):
        await bot.save()
    binding.llm_client = await LLMClient.objects.create(name="other")
    with pytest.raises(UsageError, match="llm_client"):
        await binding.save()
    key = binding.api_key
    key.digest = "0" * 128
    with pytest.raises(UsageError, match="digest"):
        await key.save()


async def test_refreshing_takes_over_what_others_wrote(keys: Management) -> None:
    binding = await make_binding()
    await keys.set_key(binding.api_key.key_id, name="renamed")
    await keys.set_resource(binding.llm_client.resource, name="ours")
    await binding.refresh_from_db()
    assert (binding.api_key.name, binding.llm_client.name) == ("renamed", "ours")
    await binding.api_key.delete()
    with pytest.raises(LLMClientAPIKey.DoesNotExist):
        await binding.refresh_from_db()
    with pytest.raises(SmarterAuthToken.DoesNotExist):
        await binding.api_key.refresh_from_db()


async def test_open_bot_is_deleted_and_a_protected_one_where_that_is_meant(keys: Management) -> None:
    await (await LLMClient.objects.create(name="open")).delete()
    binding = await make_binding()
    bot = await LLMClient.objects.get(id=binding.llm_client_id)
    with pytest.raises(RefusedError, match="protected"):
        await bot.delete()
    assert await bot.delete(allow_anonymous=True) == (1, {"LLMClient": 1})
    assert await LLMClientAPIKey.objects.count() == 0
    with pytest.raises(LLMClient.DoesNotExist):
        await bot.delete()
    with pytest.raises(LLMClient.NotUpdated):
        await bot.save()


# Keys


async def test_key_is_created_with_a_token_that_is_the_string_itself_and_hides() -> None:
    created = await SmarterAuthToken.objects.create(name="ci", description="for CI", expiry=30 * HOUR)
    key, token = created
    assert isinstance(token, str)
    assert f"Token {token}" == "Token " + token
    assert Token(token.encode()).digest.hex() == key.digest
    assert (len(key.digest), key.token_key) == (128, token[:15])
    assert token not in repr(created)
    assert token not in str(vars(key))
    assert (key.name, key.description, key.is_active, key.last_used_at) == ("ci", "for CI", True, None)
    assert key.expiry is not None
    assert timedelta(0) < key.expiry - datetime.now(UTC) <= 30 * HOUR
    assert str(key).startswith("ci")
    assert key.token == token
    assert (await SmarterAuthToken.objects.get(name="ci")).token is None


async def test_key_has_the_format_that_was_asked_for() -> None:
    assert (await SmarterAuthToken.objects.create(name="ci", format="checked")).token.startswith("sm_")


async def test_a_token_has_the_prefix_that_was_asked_for_and_keeps_it_when_rotated() -> None:
    key, token = await SmarterAuthToken.objects.create(name="ci", prefix="test")
    assert token.startswith("sm_test_")
    assert (await key.rotate()).token.startswith("sm_test_")
    assert not (await SmarterAuthToken.objects.create(name="plain")).token.startswith("sm_")


async def test_a_prefix_of_the_format_knox_is_refused() -> None:
    with pytest.raises(UsageError, match="format knox have no prefix"):
        await SmarterAuthToken.objects.create(name="ci", format="knox", prefix="test")


async def test_key_is_told_as_json_without_its_digest() -> None:
    key = await make_key("ci", expiry=HOUR)
    told = key.to_json()
    assert told["key_id"] == str(key.key_id)
    assert key.expiry is not None
    assert told["expiry"] == key.expiry.isoformat()
    assert key.digest not in str(told)
    binding = await make_binding("other")
    assert binding.api_key.digest not in str(binding.to_json())
    assert binding.to_json()["llm_client_id"] == binding.llm_client_id


async def test_key_is_turned_off_and_on(keys: Management) -> None:
    key = await make_key(is_active=False)
    seen = [key.is_active]
    for turn in (key.activate, key.deactivate, key.toggle_active):
        await turn()
        seen.append(key.is_active)
        assert (await keys.key(key.key_id)).is_active is key.is_active
    assert seen == [False, True, False, True]
    await keys.deactivate(key.key_id)
    await key.toggle_active()
    assert (await keys.key(key.key_id)).is_active
    key.is_active = False
    await key.save()
    assert not (await keys.key(key.key_id)).is_active


async def test_key_is_changed_and_expires_when_that_is_said() -> None:
    key = await make_key(expiry=HOUR)
    key.name, key.description, key.expiry = "renamed", "moved", datetime.now(UTC) - timedelta(days=1)
    await key.save()
    found = await SmarterAuthToken.objects.get(key_id=key.key_id)
    assert (found.name, found.description, found.expiry) == ("renamed", "moved", key.expiry)
    key.expiry = None
    await key.save()
    assert (await SmarterAuthToken.objects.get(name="renamed")).expiry is None


async def test_labels_are_made_changed_and_taken_away(keys: Management) -> None:
    key = await make_key(labels={"team": "sales", "env": "live"})
    assert (await SmarterAuthToken.objects.get(name="key")).labels == {"team": "sales", "env": "live"}
    key.labels = {"team": "ops"}
    await key.save()
    assert (await keys.key(key.key_id)).labels == {"team": "ops"}
    assert key.to_json()["labels"] == {"team": "ops"}
    assert [one.name for one in await SmarterAuthToken.objects.filter(labels={"team": "ops"})] == ["key"]
    key.labels["bad label"] = "x"
    with pytest.raises(UsageError):
        await key.save()


async def test_rotated_key_is_the_same_one_and_found_by_either_token() -> None:
    key, old = await SmarterAuthToken.objects.create(name="ci")
    old_digest = key.digest
    rotated = await key.rotate(HOUR)
    assert rotated.key is key
    assert rotated.token != old
    for lookup in ({"digest": key.digest}, {"digest": old_digest}, {"token_key": old[:15]}, {"pk": old_digest}):
        assert await SmarterAuthToken.objects.get(**lookup) == key
    with pytest.raises(RefusedError, match="being rotated"):
        await key.rotate()
    assert (await key.rotate(timedelta(0), force=True)).token != rotated.token


async def test_deleted_key_is_revoked_and_what_it_opened_stays_closed(keys: Management) -> None:
    binding = await make_binding()
    key, bot = binding.api_key, binding.llm_client
    assert await key.delete() == (1, {"SmarterAuthToken": 1})
    assert (await keys.key(key.key_id)).revoked_at is not None
    assert await SmarterAuthToken.objects.count() == 0
    assert await LLMClientAPIKey.objects.count() == 0
    assert (await keys.resource(bot.resource)).protection is Protection.BOUND
    with pytest.raises(SmarterAuthToken.NotUpdated, match="revoked"):
        await key.save()
    await make_key("key")


async def test_deleted_key_opens_what_is_meant_to_be_open(keys: Management) -> None:
    binding = await make_binding()
    await binding.api_key.delete(allow_anonymous=True)
    assert (await keys.resource(binding.llm_client.resource)).protection is Protection.OPEN


async def test_key_that_was_revoked_otherwise_shows_as_inactive_where_it_is_bound(keys: Management) -> None:
    binding = await make_binding()
    await keys.revoke(binding.api_key.key_id)
    found = await LLMClientAPIKey.objects.get(id=binding.id)
    assert not found.api_key.is_active
    assert not await LLMClientAPIKey.has_active_api_key(binding.llm_client, invalidate=True)


# Bindings


async def test_last_binding_goes_only_where_that_is_meant(keys: Management) -> None:
    first = await make_binding("first")
    second = await make_binding("second", first.llm_client)
    assert await first.delete() == (1, {"LLMClientAPIKey": 1})
    with pytest.raises(RefusedError) as refused:
        await second.delete()
    assert "allow_anonymous=True" in refused.value.hint
    assert (await keys.resource(first.llm_client.resource)).protection is Protection.BOUND
    await second.delete(allow_anonymous=True)
    assert (await keys.resource(first.llm_client.resource)).protection is Protection.OPEN


async def test_many_are_deleted_all_or_none(keys: Management) -> None:
    first = await make_binding("first")
    await make_binding("second", first.llm_client)
    ours = LLMClientAPIKey.objects.filter(llm_client=first.llm_client)
    with pytest.raises(RefusedError, match="to anyone"):
        await ours.delete()
    assert await ours.count() == 2
    assert await ours.delete(allow_anonymous=True) == (2, {"LLMClientAPIKey": 2})
    assert await ours.delete() == (0, {})
    assert (await keys.resource(first.llm_client.resource)).protection is Protection.OPEN


async def test_everything_is_not_deleted_by_mistake() -> None:
    binding = await make_binding()
    with pytest.raises(UsageError, match="every LLMClientAPIKey"):
        await LLMClientAPIKey.objects.delete(allow_anonymous=True)
    assert await LLMClientAPIKey.objects.delete(id=0) == (0, {})
    assert (await binding.llm_client.llmclientapikey_set.delete(allow_anonymous=True))[0] == 1
    assert (await SmarterAuthToken.objects.all().delete())[0] == 1


async def test_key_is_bound_by_whatever_stands_for_it() -> None:
    created = await SmarterAuthToken.objects.create(name="key")
    for given in (
        {"api_key": created},
        {"api_key": created.key},
        {"api_key_id": created.key.digest},
        {"api_key_id": created.key.key_id},
        {"api_key": str(created.key.key_id)},
    ):
        bot = await ChatBot.objects.create(name="mine")
        assert (await ChatBotAPIKey.objects.create(chatbot=bot, **given)).api_key == created.key
        assert (await ChatBotAPIKey.objects.get(chatbot=bot, **given)).chatbot == bot
    by_number = await ChatBot.objects.create(name="mine")
    assert (await ChatBotAPIKey.objects.create(chatbot_id=by_number.id, api_key=created)).chatbot == by_number
    assert await created.key.chatbotapikey_set.count() == 6
    assert await created.key.llmclientapikey_set.count() == 0


async def test_binding_that_exists_is_a_conflict() -> None:
    binding = await make_binding()
    with pytest.raises(ConflictError, match="bound"):
        await LLMClientAPIKey.objects.create(llm_client=binding.llm_client, api_key=binding.api_key)


async def test_binding_across_accounts_is_refused_and_nothing_is_made() -> None:
    bot = await ChatBot.objects.create(name="mine", account="acme")
    with pytest.raises(RefusedError, match="acme"):
        await ChatBotAPIKey.objects.create(chatbot=bot, api_key=await make_key())
    await bot.refresh_from_db()
    assert not bot.is_protected


async def test_binding_of_what_is_not_there_is_refused_and_shows_no_secret() -> None:
    bot, (key, token) = await ChatBot.objects.create(name="mine"), await SmarterAuthToken.objects.create(name="key")
    for given, error in (
        ({"chatbot": bot, "api_key": uuid4()}, NotFoundError),
        ({"chatbot": bot, "api_key": "0" * 128}, NotFoundError),
        ({"chatbot": bot, "api_key": token}, UsageError),
        ({"chatbot": bot}, UsageError),
        ({"api_key": key}, UsageError),
        ({"chatbot": await LLMClient.objects.create(name="other"), "api_key": key}, UsageError),
        ({"chatbot": ChatBot(name="unsaved"), "api_key": key}, UsageError),
        ({"chatbot_id": 4711, "api_key": key}, NotFoundError),
        ({"chatbot": bot, "api_key": key, "colour": "red"}, UsageError),
    ):
        with pytest.raises(error) as raised:
            await ChatBotAPIKey.objects.create(**given)
        assert token not in str(raised.value)
    assert await ChatBotAPIKey.objects.count() == 0
    assert await ChatBot.objects.count() == 1


async def test_deleted_bot_is_not_made_anew_by_binding_a_key_to_it() -> None:
    bot = await ChatBot.objects.create(name="mine")
    await (await ChatBot.objects.get(id=bot.id)).delete()
    with pytest.raises(NotFoundError, match="no resource"):
        await ChatBotAPIKey.objects.create(chatbot=bot, api_key=await make_key())
    assert await ChatBot.objects.count() == 0


async def test_name_of_a_living_key_is_a_conflict() -> None:
    await make_key("one")
    with pytest.raises(ConflictError, match="'one'"):
        await make_key("one")
    two = await make_key("two")
    two.name = "one"
    with pytest.raises(ConflictError, match="'one'"):
        await two.save()


# Finding


async def test_what_exists_is_got_and_what_does_not_is_created() -> None:
    bot, key = await ChatBot.objects.create(name="mine"), await make_key()
    made, is_new = await ChatBotAPIKey.objects.get_or_create(chatbot=bot, api_key=key)
    assert is_new
    assert await ChatBotAPIKey.objects.get_or_create(chatbot=bot, api_key=key) == (made, False)
    ci, is_new = await SmarterAuthToken.objects.get_or_create(name="ci", defaults={"description": "for CI"})
    assert (is_new, ci.description) == (True, "for CI")
    assert ci.token
    again, is_new = await SmarterAuthToken.objects.get_or_create(name="ci")
    assert (again, is_new, again.token) == (ci, False, None)
    with pytest.raises(ConflictError):
        await SmarterAuthToken.objects.get_or_create(name="ci", description="another")


async def test_many_who_get_or_create_at_once_create_one() -> None:
    bot, key = await ChatBot.objects.create(name="mine"), await make_key()
    done = await asyncio.gather(*(bot.chatbotapikey_set.get_or_create(api_key=key) for _ in range(6)))
    assert len({binding.id for binding, _ in done}) == 1
    assert sum(is_new for _, is_new in done) == 1


async def test_objects_are_filtered_by_what_they_have_and_belong_to(keys: Management) -> None:
    first = await make_binding("first")
    second = await make_binding("second", first.llm_client)
    third = await make_binding("third")
    await second.api_key.deactivate()
    objects = LLMClientAPIKey.objects
    assert await objects.filter(llm_client=first.llm_client) == [first, second]
    assert await objects.filter(llm_client_id=first.llm_client_id, api_key__is_active=True) == [first]
    assert await objects.filter(llm_client=first.llm_client).filter(api_key=second.api_key) == [second]
    assert await objects.filter(api_key__name="third") == [third]
    assert await objects.filter(llm_client__in=[third.llm_client, second.llm_client], id__gt=first.id) == [
        second,
        third,
    ]
    assert await objects.filter(id__in=[first.id, third.id]) == [first, third]
    assert await objects.filter(created_at__lte=second.created_at, api_key__expiry__isnull=True) == [first, second]
    assert await objects.filter(api_key__expiry__lt=datetime.now(UTC)) == []
    assert await objects.filter(pk=third.id) == [third]
    assert await SmarterAuthToken.objects.filter(is_active=False) == [second.api_key]
    assert await LLMClient.objects.filter(name="mine", is_protected=True) == [first.llm_client, third.llm_client]
    assert await LLMClient.objects.filter(domain=None).count() == 2


async def test_what_can_be_no_value_finds_nothing() -> None:
    binding = await make_binding()
    for found in (
        ChatBot.objects.filter(id="x"),
        LLMClient.objects.filter(name="a\0b"),
        LLMClient.objects.filter(name=5),
        SmarterAuthToken.objects.filter(key_id="x"),
        SmarterAuthToken.objects.filter(digest="x"),
        SmarterAuthToken.objects.filter(token_key="\ud800"),
        LLMClientAPIKey.objects.filter(id="x"),
        LLMClientAPIKey.objects.filter(id=4711),
        ChatBotAPIKey.objects.filter(id=binding.id),
        SmarterAuthToken.objects.filter(key_id=uuid4()),
        LLMClientAPIKey.objects.filter(api_key="0" * 128),
    ):
        assert not await found.exists()
        assert await found.count() == 0


@pytest.mark.parametrize("lookup", ["colour", "api_key__colour", "id__id", "llm_client__api_key", "name"])
def test_what_is_no_field_is_told_with_those_that_there_are(lookup: str) -> None:
    with pytest.raises(UsageError, match="is not a field"):
        LLMClientAPIKey.objects.filter(**{lookup: "red"})


async def test_objects_are_counted_and_walked_through_in_the_order_they_were_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(querysets, "CHUNK", 2)
    made = [await ChatBot.objects.create(name=f"bot {number}") for number in range(5)]
    assert [bot async for bot in ChatBot.objects.all()] == made
    assert await ChatBot.objects.all().filter().first() == made[0]
    assert await ChatBot.objects.count() == 5
    assert await ChatBot.objects.filter(id__gt=made[1].id).count() == 3
    assert await ChatBot.objects.filter(name="bot 9").first() is None
    assert not await ChatBot.objects.filter(name="bot 9").exists()
    async for bot in ChatBot.objects.all():
        await bot.delete()
    assert await ChatBot.objects.all() == []


async def test_errors_name_what_was_asked_for_and_no_value() -> None:
    for name in ("one", "two"):
        await make_key(name)
    with pytest.raises(SmarterAuthToken.DoesNotExist, match=r"No SmarterAuthToken \(digest\)") as error:
        await SmarterAuthToken.objects.get(digest="f" * 128)
    assert "fff" not in str(error.value)
    with pytest.raises(SmarterAuthToken.MultipleObjectsReturned, match=r"SmarterAuthToken \(is_active\)"):
        await SmarterAuthToken.objects.get(is_active=True)


async def test_objects_are_equal_by_what_they_are() -> None:
    binding = await make_binding()
    twin = await LLMClientAPIKey.objects.get(id=binding.id)
    assert {binding, binding.api_key, binding.llm_client} == {twin, twin.api_key, twin.llm_client}
    assert binding.llm_client != await ChatBot.objects.create(id=binding.llm_client_id)
    assert ChatBot(name="mine") != ChatBot(name="mine")
    with pytest.raises(TypeError, match="hash"):
        hash(ChatBot(name="mine"))


async def test_object_is_found_by_its_record_locator() -> None:
    bot = await ChatBot.objects.create(id=42, name="mine")
    assert (bot.hashed_id, bot.record_locator) == ("rMTAwMDA0Mgx", "chatbot-rMTAwMDA0Mgx")
    assert bot.id_from_hashed_id("rMTAwMDA0Mgx") == 42
    assert await ChatBot.get_object_by_locator("chatbot-rMTAwMDA0Mgx") == bot
    for wrong in ("llmclient-rMTAwMDA0Mgx", "chatbot-rMTAwMDA0Mw", "chatbot", "", "chatbot-rMTAwMDA0Mwx"):
        assert await ChatBot.get_object_by_locator(wrong) is None
    assert bot.elapsed_updated is not None
    assert 0 <= bot.elapsed_updated < PATIENCE_S
    assert bot.to_json()["record_locator"] == bot.record_locator
    assert ChatBot(name="new").elapsed_updated is None
    assert repr(bot) == "<ChatBot(ref=42)>"


# The cache


async def test_what_this_process_has_written_is_known_at_once() -> None:
    bot = await LLMClient.objects.create(name="mine")
    for number in range(3):
        assert not await LLMClientAPIKey.has_active_api_key(bot)
        binding = await make_binding(f"key {number}", bot)
        assert await LLMClientAPIKey.has_active_api_key(bot)
        assert await LLMClientAPIKey.get_cached_objects(llm_client=bot) == [binding]
        await binding.api_key.deactivate()
        assert not await LLMClientAPIKey.has_active_api_key(bot)
        assert [one.api_key.is_active for one in await LLMClientAPIKey.get_cached_objects(llm_client=bot)] == [False]
        await binding.delete(allow_anonymous=True)
        assert await LLMClientAPIKey.get_cached_objects(llm_client=bot) == []


async def test_expired_key_is_no_active_one_though_nothing_was_written() -> None:
    binding = await make_binding()
    binding.api_key.expiry = datetime.now(UTC) - HOUR
    await binding.api_key.save()
    assert not await LLMClientAPIKey.has_active_api_key(binding.llm_client)


async def test_what_others_have_written_is_read_where_that_is_asked_for(database: Database) -> None:
    binding = await make_binding()
    async with open_pool(database.manager) as pool:
        others = Management(Store(pool), "another process")
        for _ in range(3):
            await others.deactivate(binding.api_key.key_id)
            assert not await LLMClientAPIKey.has_active_api_key(binding.llm_client, invalidate=True)
            await others.activate(binding.api_key.key_id)
            assert await LLMClientAPIKey.has_active_api_key(binding.llm_client, True)


async def test_warm_objects_are_not_read_again_and_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    binding = await make_binding()
    (mine,) = await LLMClientAPIKey.get_cached_objects(llm_client=binding.llm_client)
    connection = await current()
    bindings = await connection.bindings(binding.llm_client.resource)

    async def warm(*_: object, **__: object) -> object:
        return bindings

    def unread(_: object) -> None:
        raise AssertionError("It was read again.")

    monkeypatch.setattr(ModelSession, "bindings", warm)
    monkeypatch.setattr(ModelSession, "reading", unread)
    (theirs,) = await LLMClientAPIKey.get_cached_objects(llm_client=binding.llm_client)
    assert theirs == mine
    mine.api_key.name = "changed"
    assert theirs.api_key.name == "key"


# The audit, and outages


async def test_each_write_is_one_transaction_with_its_audit_row(owner: asyncpg.Connection) -> None:
    binding = await make_binding()
    await binding.save()
    await binding.api_key.toggle_active()
    binding.api_key.description = "changed"
    await binding.api_key.save()
    await binding.llm_client.save()
    await binding.api_key.rotate()
    await binding.delete(allow_anonymous=True)
    await binding.api_key.delete()
    await binding.llm_client.delete()
    events = await owner.fetch("SELECT action, actor, xmin::text AS tx FROM smarter_auth.audit_event ORDER BY id")
    assert [event["action"] for event in events] == [
        "resource.add",
        "key.create",
        "key.bind",
        "binding.touch",
        "key.deactivate",
        "key.set",
        "resource.set",
        "key.rotate",
        "key.unbind",
        "resource.unprotect",
        "key.revoke",
        "resource.remove",
    ]
    assert {event["actor"] for event in events} == {"models"}
    assert len({event["tx"] for event in events}) == 11  # Unbinding the last key opens in the same transaction.


async def test_database_that_goes_away_in_the_middle_of_a_write_takes_nothing_with_it(
    owner: asyncpg.Connection,
) -> None:
    bot, key = await ChatBot.objects.create(name="mine"), await make_key()
    async with owner.transaction():
        await owner.execute("SELECT FROM smarter_auth.resource FOR UPDATE")
        writing = asyncio.create_task(ChatBotAPIKey.objects.create(chatbot=bot, api_key=key))
        async with asyncio.timeout(PATIENCE_S):
            while not await owner.fetchval(
                "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            ):
                await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await writing
    assert await ChatBotAPIKey.objects.count() == 0
    assert (await ChatBotAPIKey.objects.create(chatbot=bot, api_key=key)).chatbot == bot
