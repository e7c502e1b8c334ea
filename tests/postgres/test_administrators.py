"""What `db …` says to whoever runs it: what an administrator has to do, all at once, and never in a circle."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest

from smarter_auth_mw.errors import NotFoundError, RefusedError, SchemaError, SmarterAuthError, UnavailableError
from smarter_auth_mw.postgres import migrations
from tests.support.plain_postgres import OWNER, PASSWORD, PlainPostgres, installed
from tests.support.platform import platform_ddl

SERVERS = installed()
ROLES = {
    "another_superuser": "SUPERUSER",
    "creator": "CREATEROLE",
    "database_owner": "",
    "plain": "",
    "server": "",
    "keys": "",
}
"""Who may run it: the last two serve and write keys, once there is a schema."""

Act = Callable[[str], Coroutine[Any, Any, Any]]
ACTS: dict[str, Act] = {
    "migrate": migrations.migrate,
    "migrate --runtime-role": lambda url: migrations.migrate(url, "server"),
    "attach": lambda url: migrations.migrate(url, attach=True),
    "detach": migrations.detach,
    "restored": migrations.restored,
}


class Site:
    """A server of one version, and its administrator."""

    def __init__(self, server: PlainPostgres, version: float, administrator: asyncpg.Connection) -> None:
        self.server = server
        self.version = version
        self.administrator = administrator
        self._made = 0

    async def database(self, *, has_platform: bool = False) -> str:
        """A new database of the database owner's, which nobody has migrated; our own role is gone too."""
        await self.clear()
        for name, options in ROLES.items():
            await self.administrator.execute(f"CREATE ROLE {name} LOGIN {options} PASSWORD '{PASSWORD}'")
        self._made += 1
        name = f"d{self._made}"
        await self.administrator.execute(f"CREATE DATABASE {name} OWNER database_owner")
        if has_platform:
            await self.execute(name, platform_ddl(("llm_client",), "owned"))
        return name

    async def clear(self) -> None:
        """Drop the database that was made last, and every role."""
        await self.administrator.execute(f"DROP DATABASE IF EXISTS d{self._made} WITH (FORCE)")
        for name in ("smarter_auth", *ROLES):
            await self.administrator.execute(f"DROP ROLE IF EXISTS {name}")

    async def migrated(self, *, has_platform: bool = False) -> str:
        """A database that the administrator has migrated."""
        name = await self.database(has_platform=has_platform)
        await migrations.migrate(self.url(name, OWNER), "server", manager_role="keys", attach=has_platform)
        return name

    async def execute(self, database: str, script: str) -> None:
        """Run it as the administrator, in that database."""
        connection = await asyncpg.connect(self.url(database, OWNER))
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    def url(self, database: str, role: str) -> str:
        return self.server.url(database, role)


@pytest.fixture(scope="module", params=[next(iter(SERVERS)), list(SERVERS)[-1]])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[PlainPostgres, float]]:
    with PlainPostgres(SERVERS[request.param]).made() as server:
        yield server, float(request.param)


@pytest.fixture
async def site(server: tuple[PlainPostgres, float]) -> AsyncIterator[Site]:
    administrator = await asyncpg.connect(server[0].url("postgres", OWNER))
    site = Site(*server, administrator)
    yield site
    await site.clear()
    await administrator.close()


def _advice(error: SmarterAuthError) -> str:
    """The statements that an administrator is told to run."""
    return " ".join(re.findall(r"(?:CREATE|GRANT|ALTER) [^;]+;", error.hint))


async def test_nobody_is_sent_in_a_circle_to_make_the_schema(site: Site) -> None:
    for role in ROLES:
        database = await site.database()
        url = site.url(database, role)
        if role != "another_superuser":
            with pytest.raises(UnavailableError, match="may not create the schema") as refused:
                await migrations.migrate(url)
            assert "does not serve" in refused.value.hint, role
            await site.execute(database, _advice(refused.value))
        assert (await migrations.migrate(url)).pending == [], role


@pytest.mark.parametrize("has_role", [False, True])
async def test_only_what_is_lacking_is_asked_for(site: Site, *, has_role: bool) -> None:
    asked = {}
    for role in ROLES:
        database = await site.database()
        if has_role:
            await site.execute(database, "CREATE ROLE smarter_auth NOLOGIN")
        try:
            await migrations.migrate(site.url(database, role))
        except UnavailableError as refused:
            asked[role] = _advice(refused).replace(role, "me").replace(database, "here")
    make, join, create = (
        "CREATE ROLE smarter_auth NOLOGIN;",
        "GRANT smarter_auth TO me;",
        "GRANT CREATE ON DATABASE here TO me;",
    )
    may_join_itself = not has_role or site.version < 16
    assert asked == {
        "creator": create if may_join_itself else f"{join} {create}",
        "database_owner": join if has_role else f"{make} {join}",
    } | dict.fromkeys(("plain", "server", "keys"), f"{join} {create}" if has_role else f"{make} {join} {create}")


async def test_whoever_works_there_is_sent_to_the_owner_and_never_made_one(site: Site) -> None:
    database = await site.migrated(has_platform=True)
    for role in ("server", "keys"):
        for name, act in ACTS.items():
            with pytest.raises(SmarterAuthError) as refused:
                await act(site.url(database, role))
            said = f"{role} {name}: {refused.value.hint}"
            assert OWNER in refused.value.hint, said
            assert "GRANT" not in refused.value.hint, said
            assert "--runtime-role" not in refused.value.hint, said
    assert (await migrations.status(site.url(database, "server"))).layout == "smarter"


async def test_a_stranger_is_sent_to_the_owner(site: Site) -> None:
    database = await site.migrated(has_platform=True)
    for name, act in {"status": migrations.status, **ACTS}.items():
        with pytest.raises(RefusedError, match="The role plain has no rights in the schema smarter_auth") as refused:
            await act(site.url(database, "plain"))
        assert "role that migrated it" in refused.value.hint, name


async def test_a_member_of_the_owner_may_do_all_of_it(site: Site) -> None:
    database = await site.migrated(has_platform=True)
    await site.execute(database, "GRANT smarter_auth TO plain; ALTER ROLE plain NOINHERIT")
    for name in ("migrate", "migrate --runtime-role", "attach", "restored"):
        await ACTS[name](site.url(database, "plain"))


async def test_what_is_not_there_yet_is_said_before_who_may(site: Site) -> None:
    database = await site.database()
    url = site.url(database, "plain")
    assert (await migrations.status(url)).schema is None
    with pytest.raises(SchemaError) as unmigrated:
        await migrations.restored(url)
    assert "db migrate" in unmigrated.value.hint
    with pytest.raises(RefusedError, match="No platform is attached"):
        await migrations.detach(url)
    with pytest.raises(SchemaError, match="There is no Smarter platform in this database") as refused:
        await migrations.migrate(site.url(database, OWNER), attach=True)
    assert "search_path" in refused.value.hint


async def test_a_role_that_is_not_there_leaves_no_step_to_be_told_of(site: Site) -> None:
    database = await site.database()
    for runtime_role, manager_role in (("nosuch", None), (None, "nosuch")):
        said: list[str] = []
        with pytest.raises(NotFoundError, match='role "nosuch" does not exist') as refused:
            await migrations.migrate(site.url(database, OWNER), runtime_role, said.append, manager_role=manager_role)
        assert "CREATE ROLE" in refused.value.hint
        assert said == []
    assert (await migrations.status(site.url(database, OWNER))).schema is None


async def test_a_superuser_or_a_member_that_is_to_serve_is_noted(site: Site) -> None:
    database = await site.migrated()
    said: list[str] = []
    await migrations.migrate(site.url(database, OWNER), "another_superuser", said.append)
    assert any("another_superuser is a superuser or a member of smarter_auth" in line for line in said)
