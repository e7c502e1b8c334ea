"""Keys and resources of an attached platform: shown, and changed only there."""

from __future__ import annotations

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.admin import settings
from tests.support.asgi import lifespan
from tests.support.pages import Outline, Person
from tests.support.platform import Platform


async def test_platform_keys_are_shown_without_buttons(platform: Platform) -> None:
    owner = await platform.user("admin")
    bot = await platform.bot("helper", owner)
    digest = await platform.key("theirs", owner)
    await platform.bind(bot, digest)
    key_id = str(await platform.sql.fetchval("SELECT key_id FROM drf_smarterauthtoken"))
    app = AdminApp(settings(platform.database, routes=["llm_client /llm/{ref:int}"]))
    async with open_pool(platform.database.owner) as pool, lifespan(app):
        person = Person(app)
        minted = await Operators(Store(pool), "tester").create("admin", Role.ADMIN)
        await person.sign_in(minted.token.reveal())
        assert "No keys yet" not in (await person.get("/")).text
        listed = await person.get("/keys")
        assert key_id in listed.text
        assert Outline(listed.text).all("input") != []
        assert [one for one in Outline(listed.text).all("input") if one.get("value") == key_id] == []
        page = Outline((await person.get(f"/keys/{key_id}")).text)
        assert "belongs to the platform" in page.text
        assert [link for link in page.links if f"keys/{key_id}/" in link or link.endswith("/unbind")] == []
        resource = Outline((await person.get(f"/resources/llm_client/{bot}")).text)
        assert "change it in the platform" in resource.text
        assert not [link for link in resource.links if link.endswith("/unbind")]
        for act in ("rotate", "deactivate", "revoke", "edit"):
            refused = await person.post(f"/keys/{key_id}/{act}", {"name": "x", "token_key": "x"})
            assert (refused.status_code, "the platform" in refused.text) == (409, True), act
