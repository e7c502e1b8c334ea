"""An existing Smarter platform, guarded as it is: what opens what, by every way that leads there."""

from __future__ import annotations

import asyncpg
import pytest

from smarter_auth_mw.postgres import migrations
from tests.support.platform import ACCOUNT, OTHER_ACCOUNT, Front, Platform, front_of

PATH = "/api/v1/llm-clients/42/prompt/"
WAYS = (
    PATH,
    "/api/v1/llm-clients/rMTAwMDA0Mgx/prompt/",
    "/api/v1/workbench/42/prompt/",
    "/api/v1/cli/prompt/hr_bot/",
    "/api/v1/cli/prompt/hr-bot/",
    f"http://hr-bot.{ACCOUNT}.api.example.com/prompt/",
    f"http://hr-bot-admin.{ACCOUNT}.api.example.com/config/",
    "http://sales.example.net/config/",
    "http://anything.sales.example.net/",
)


@pytest.fixture
async def owner(platform: Platform) -> int:
    """The account's administrator, who owns bot 42."""
    profile = await platform.user("admin")
    await platform.bot("hr_bot", profile, 42, "sales.example.net")
    return profile


async def test_bound_bot_answers_its_own_key_alone_by_every_way(platform: Platform, owner: int, front: Front) -> None:
    assert {await front.ask(url) for url in WAYS} == {200}
    await platform.bind(42, await platform.key("first", owner))
    await platform.key("unbound", owner)
    for url in WAYS:
        await front.comes_to(401, url)
        assert [await front.ask(url, key) for key in ("first", "unbound", "unknown")] == [200, 401, 401]


async def test_alias_that_stands_for_nothing_is_not_found(platform: Platform, owner: int, front: Front) -> None:
    await platform.bot("example", await platform.user("jdoe", is_staff=False))
    for url in (
        "/api/v1/cli/prompt/nobody/",
        f"http://nobody.{ACCOUNT}.api.example.com/",
        f"http://hr-bot.{OTHER_ACCOUNT}.api.example.com/",
        f"http://example.{ACCOUNT}.api.example.com/",  # jdoe's, who does not administer the account
    ):
        assert await front.ask(url) == 404


async def test_bot_of_another_user_has_their_name_in_its_host(platform: Platform, owner: int, front: Front) -> None:
    profile = await platform.user("jdoe", is_staff=False)
    await platform.bind(await platform.bot("example", profile), await platform.key("first", profile))
    url = f"http://example-jdoe.{ACCOUNT}.api.example.com/"
    assert [await front.ask(url, key) for key in ("", "first")] == [401, 200]


async def test_label_and_name_that_two_bots_claim_are_refused(platform: Platform, owner: int, front: Front) -> None:
    await platform.bot("hr", await platform.user("bot", is_staff=False))
    await platform.bot("hr_bot", await platform.user("jdoe", is_staff=False))
    assert await front.ask(f"http://hr-bot.{ACCOUNT}.api.example.com/") == 400
    assert await front.ask("/api/v1/cli/prompt/hr_bot/") == 400
    assert await front.ask(PATH) == 200


async def test_domain_counts_once_it_is_verified(platform: Platform, owner: int, front: Front) -> None:
    await platform.bind(42, await platform.key("first", owner))
    await platform.sql.execute(f"UPDATE {platform.bots}customdomain SET is_verified = false")
    await front.comes_to(200, "http://sales.example.net/")
    await platform.sql.execute(f"UPDATE {platform.bots}customdomain SET is_verified = true")
    await front.comes_to(401, "http://sales.example.net/")
    await platform.sql.execute(f"UPDATE {platform.bots}customdomain SET domain_name = 'Other.Example.ORG.'")
    await front.comes_to(401, "http://other.example.org/")
    assert await front.comes_to(200, "http://sales.example.net/") <= {401, 404}


REFUSED = {
    "key switched off": "UPDATE drf_smarterauthtoken SET is_active = false",
    "expired": "UPDATE knox_authtoken SET expiry = now() - interval '1 second'",
    "expired before all time": "UPDATE knox_authtoken SET expiry = '-infinity'",
    "expired before our era": "UPDATE knox_authtoken SET expiry = '0044-03-15 BC'",
    "owner switched off": "UPDATE auth_user SET is_active = false",
    "owner in another account": f"""
        INSERT INTO account_account (id, name, account_number) VALUES (900, '', '{OTHER_ACCOUNT}');
        INSERT INTO account_userprofile (id, name, account_id, user_id) SELECT 901, '', 900, id FROM auth_user;
        UPDATE drf_smarterauthtoken SET user_profile_id = 901""",
    "digest replaced": """
        INSERT INTO knox_authtoken (digest, token_key, user_id)
        SELECT repeat('0', 128), token_key, user_id FROM knox_authtoken;
        UPDATE drf_smarterauthtoken SET authtoken_ptr_id = repeat('0', 128);
        UPDATE llm_client_llmclientapikey SET api_key_id = repeat('0', 128)""",
    "digest that is none": """
        INSERT INTO knox_authtoken (digest, token_key, user_id) SELECT '', '', user_id FROM knox_authtoken;
        UPDATE drf_smarterauthtoken SET authtoken_ptr_id = '';
        UPDATE llm_client_llmclientapikey SET api_key_id = ''""",
    "bound elsewhere": """
        INSERT INTO llm_client_llmclient (id, name, user_profile_id) SELECT 43, 'other', id FROM account_userprofile;
        INSERT INTO llm_client_llmclientapikey (llm_client_id, api_key_id) SELECT 42, '';
        INSERT INTO knox_authtoken (digest, token_key, user_id) SELECT '', '', user_id FROM knox_authtoken;
        INSERT INTO drf_smarterauthtoken (authtoken_ptr_id, key_id, name, is_active, user_profile_id)
        SELECT '', gen_random_uuid(), 'empty', true, user_profile_id FROM drf_smarterauthtoken;
        UPDATE llm_client_llmclientapikey SET llm_client_id = 43 WHERE api_key_id <> ''""",
    "bindings truncated": "TRUNCATE llm_client_llmclientapikey",
    "keys truncated": "TRUNCATE drf_smarterauthtoken CASCADE",
}


@pytest.mark.parametrize("statements", REFUSED.values(), ids=REFUSED.keys())
async def test_what_the_platform_takes_away_is_refused_and_opens_nothing(
    platform: Platform, owner: int, front: Front, statements: str
) -> None:
    await platform.bind(42, await platform.key("first", owner))
    await front.comes_to(401, PATH)
    assert await front.ask(PATH, "first") == 200
    await platform.sql.execute(f"BEGIN; {statements}; COMMIT")
    assert await front.comes_to(401, PATH, "first") <= {200}
    assert await front.ask(PATH) == 401


async def test_first_binding_protects_and_the_unbinding_of_the_last_one_opens(
    platform: Platform, owner: int, front: Front
) -> None:
    assert await front.ask(PATH) == 200
    first, second = await platform.key("first", owner), await platform.key("second", owner)
    await platform.bind(42, first)
    await front.comes_to(401, PATH)
    await platform.bind(42, second)
    await front.comes_to(200, PATH, "second")
    await platform.unbind(42, first)
    await front.comes_to(401, PATH, "first")
    await platform.unbind(42, second)
    await front.comes_to(200, PATH)


async def test_binding_that_goes_with_its_key_leaves_the_bot_protected(
    platform: Platform, owner: int, front: Front
) -> None:
    first = await platform.key("first", owner)
    await platform.bind(42, first)
    await front.comes_to(200, PATH, "first")
    await platform.delete_key(first)
    await front.comes_to(401, PATH, "first")
    assert await front.ask(PATH) == 401
    await platform.sql.execute("SELECT smarter_auth.settle_platform()")
    await platform.sql.execute("UPDATE auth_user SET is_active = false")  # Have it read again.
    assert await front.ask(PATH) == 401
    assert await platform.sql.fetchval("SELECT count(*) FROM smarter_auth.lost_binding") == 1


async def test_unbinding_after_a_loss_opens_all_the_same(platform: Platform, owner: int, front: Front) -> None:
    lost, kept = await platform.key("lost", owner), await platform.key("kept", owner)
    await platform.bind(42, lost)
    await platform.bind(42, kept)
    await platform.delete_key(lost)
    await front.comes_to(200, PATH, "kept")
    await platform.unbind(42, kept)
    await front.comes_to(200, PATH)
    await platform.sql.execute("SELECT smarter_auth.settle_platform()")
    assert await platform.sql.fetchval("SELECT count(*) FROM smarter_auth.lost_binding") == 0


async def test_unbinding_that_could_not_see_the_loss_does_not_open(
    platform: Platform, owner: int, front: Front
) -> None:
    lost, kept = await platform.key("lost", owner), await platform.key("kept", owner)
    await platform.bind(42, lost)
    await platform.bind(42, kept)
    other = await asyncpg.connect(platform.database.owner)
    try:
        async with other.transaction():
            await other.execute(f"DELETE FROM {platform.bots}apikey WHERE api_key_id = $1", lost)
            await other.execute("DELETE FROM drf_smarterauthtoken WHERE authtoken_ptr_id = $1", lost)
            await platform.unbind(42, kept)
    finally:
        await other.close()
    await front.comes_to(401, PATH, "kept")
    assert await front.ask(PATH) == 401


async def test_earlier_generation_is_guarded_beside_the_current_one(
    platform: Platform, owner: int, front: Front
) -> None:
    earlier = Platform(platform.database, platform.sql, "chatbot")
    await earlier.bot("hr_bot", owner, 42)
    await earlier.bind(42, await earlier.key("first", owner))
    for url in ("/api/v1/chatbots/42/chat/", "/api/v1/cli/chat/hr_bot/"):
        assert [await front.ask(url, key) for key in ("", "first")] == [401, 200]
    assert await front.ask(PATH) == 200


async def test_bots_that_belong_to_accounts_are_guarded(account_era: Platform) -> None:
    urls = (
        "/api/v1/chatbots/42/chat/",
        "/api/v1/chatbots/smarter/hr_bot/",
        f"http://hr-bot.{ACCOUNT}.api.example.com/chatbot/",
        "http://sales.example.net/chatbot/",
    )
    profile = await account_era.user("admin")
    await account_era.bot("hr_bot", profile, 42, "sales.example.net")
    await account_era.bind(42, await account_era.key("first", profile))
    stranger = await account_era.user("stranger", OTHER_ACCOUNT)
    await account_era.bind(42, await account_era.key("foreign", stranger))
    async with front_of(account_era, routes=["preset:smarter-chatbot"]) as front:
        for url in urls:
            assert [await front.ask(url, key) for key in ("", "first", "foreign")] == [401, 200, 401]
        await account_era.sql.execute(
            "INSERT INTO account_userprofile (name, account_id, user_id)"
            " SELECT '', (SELECT account_id FROM account_userprofile WHERE id = $1), user_id"
            " FROM account_userprofile WHERE id = $2",
            profile,
            stranger,
        )
        for url in urls:
            await front.comes_to(200, url, "foreign")


async def test_worker_that_runs_already_guards_what_is_attached_under_it(platform: Platform, owner: int) -> None:
    await platform.bind(42, await platform.key("first", owner))
    await migrations.detach(platform.database.owner)
    await migrations.migrate(platform.database.owner, platform.database.runtime_role)
    async with front_of(platform) as front:
        assert await front.ask(PATH) == 200
        await platform.attach()
        await front.comes_to(401, PATH)
        await front.comes_to(200, PATH, "first")


RENAMES = {
    "bot": ("UPDATE llm_client_llmclient SET name = 'new_name'", f"http://new-name.{ACCOUNT}.api.example.com/"),
    "user": ("UPDATE auth_user SET username = 'root'", f"http://hr-bot-root.{ACCOUNT}.api.example.com/"),
    "account": (
        f"UPDATE account_account SET account_number = '{OTHER_ACCOUNT}'",
        f"http://hr-bot.{OTHER_ACCOUNT}.api.example.com/",
    ),
    "profile": (
        f"INSERT INTO account_account (id, name, account_number) VALUES (900, '', '{OTHER_ACCOUNT}');"
        " UPDATE account_userprofile SET account_id = 900",
        f"http://hr-bot.{OTHER_ACCOUNT}.api.example.com/",
    ),
    "in a serializable transaction": (
        "BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE llm_client_llmclient SET name = 'new_name'; COMMIT",
        f"http://new-name.{ACCOUNT}.api.example.com/",
    ),
}


@pytest.mark.parametrize(("statements", "url"), RENAMES.values(), ids=RENAMES.keys())
async def test_aliases_follow_what_is_renamed(
    platform: Platform, owner: int, front: Front, statements: str, url: str
) -> None:
    await platform.bind(42, await platform.key("first", owner))
    assert await front.ask(url) == 404
    before = f"http://hr-bot-admin.{ACCOUNT}.api.example.com/"
    await front.comes_to(401, before)
    await platform.sql.execute(statements)
    await front.comes_to(401, url)
    await front.comes_to(404, before)
    await front.comes_to(200, url, "first")


async def test_administrator_that_is_no_longer_one_loses_the_plain_labels(
    platform: Platform, owner: int, front: Front
) -> None:
    await platform.user("second")
    url = f"http://hr-bot.{ACCOUNT}.api.example.com/"
    assert await front.ask(url) == 200
    await platform.sql.execute("UPDATE auth_user SET is_staff = false WHERE username = 'admin'")
    await front.comes_to(404, url)


async def test_deactivating_the_last_key_opens_where_that_is_asked_for_but_not_after_a_loss(
    platform: Platform, owner: int
) -> None:
    lost, kept = await platform.key("lost", owner), await platform.key("kept", owner)
    await platform.bind(42, kept)
    await platform.sql.execute("UPDATE drf_smarterauthtoken SET is_active = false")
    async with front_of(platform, require="active") as front:
        assert await front.ask(PATH) == 200
        await platform.bind(42, lost)
        await platform.delete_key(lost)
        await front.comes_to(401, PATH)


async def test_bad_token_on_an_open_bot_is_refused_where_that_is_asked_for(platform: Platform, owner: int) -> None:
    await platform.key("first", owner)
    async with front_of(platform, open_bad_token="reject") as front:
        assert [await front.ask(PATH, key) for key in ("", "first", "unknown")] == [200, 200, 401]
        await platform.sql.execute("UPDATE auth_user SET is_active = false")
        await front.comes_to(401, PATH, "first")
