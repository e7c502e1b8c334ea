"""An import that opens a protected resource asks, as every other act does."""

from __future__ import annotations

import asyncio
from itertools import product
from pathlib import Path

import pytest

from smarter_auth_mw.decision import Require
from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.postgres.store import Store
from tests.management.test_opening import OTHERS, REQUIRES, Scene, State
from tests.support.cli import Commands, Ran

_CELLS: dict[State, str] = {"active": "true,", "inactive": "false,", "revoked": "false,2026-01-01T00:00:00Z"}


class Imports:
    """Runs ``smarter-auth import`` on files of one test, under one setting of REQUIRE."""

    def __init__(self, run: Commands, path: Path, require: Require) -> None:
        run.set(require=require)
        self._run = run
        self._path = path

    async def __call__(self, state: State, *resources: object, options: tuple[str, ...] = ()) -> Ran:
        """Bind a new key, which is in this state, to the resources."""
        lines = [f"{resource},new,none,{_CELLS[state]}" for resource in resources]
        self._path.write_text("\n".join(["resource,key,digest,active,revoked_at", *lines]))
        return await asyncio.to_thread(self._run, "import", str(self._path), *options, "--json")


@pytest.mark.parametrize("require", REQUIRES)
async def test_import_that_opens_asks_and_no_other_does(
    run: Commands, tmp_path: Path, store: Store, require: Require
) -> None:
    scene, imports = Scene(store, require), Imports(run, tmp_path / "in.csv", require)
    cases = list(product(OTHERS, (False, True)))
    bots = [await scene.resource(others, is_declared=is_declared) for others, is_declared in cases]
    protected = {bot for bot in bots if await scene.is_protected(bot)}
    opens = {bot for bot, case in zip(bots, cases, strict=True) if case == ((), False) and require == "active"}
    kept = [bot for bot in bots if bot not in opens]
    states: tuple[tuple[State, list[Resource]], ...] = (("active", bots), ("revoked", bots), ("inactive", kept))
    for state, tried in states:
        assert not (await imports(state, *tried, options=("--dry-run",))).exit_code
    for bot in opens:
        ran = await imports("inactive", bot)
        assert (ran.exit_code, ran.json["error"]["code"]) == (1, "would_open")
    assert not (await imports("inactive", *bots, options=("--allow-anonymous",))).exit_code
    assert protected - {bot for bot in bots if await scene.is_protected(bot)} == opens


async def test_import_that_opens_names_the_resources_and_the_flag_and_changes_nothing(
    run: Commands, tmp_path: Path, store: Store
) -> None:
    scene, tokens = Scene(store, "active"), tmp_path / "tokens.csv"
    bots = [await scene.resource((), is_declared=False) for _ in range(5)]
    imports = Imports(run, tmp_path / "in.csv", "active")
    keys = await scene.keys.keys()
    ran = await imports("inactive", *bots, options=("--tokens", str(tokens)))
    assert (ran.exit_code, ran.json["error"]["code"]) == (1, "would_open"), ran
    assert (
        ran.json["error"]["message"]
        == f"This would open {', '.join(sorted(map(str, bots))[:3])} and 2 others to anyone."
    )
    assert "--allow-anonymous" in ran.json["error"]["hint"]
    assert (await scene.keys.keys(), tokens.exists()) == (keys, False)
    assert all([await scene.is_protected(bot) for bot in bots])


async def test_active_key_in_the_same_file_keeps_the_resource_closed(
    run: Commands, tmp_path: Path, store: Store
) -> None:
    scene = Scene(store, "active")
    bot = await scene.resource((), is_declared=False)
    imports, path = Imports(run, tmp_path / "none.csv", "active"), tmp_path / "in.csv"
    path.write_text(f"resource,key,digest,active\n{bot},one,none,false\n{bot},other,none,true\n")
    assert not (await asyncio.to_thread(imports._run, "import", str(path))).exit_code
    assert await scene.is_protected(bot)


async def test_import_and_a_revocation_at_once_do_not_open_the_resource_together(
    run: Commands, tmp_path: Path, store: Store
) -> None:
    scene, imports = Scene(store, "active"), Imports(run, tmp_path / "in.csv", "active")
    bot = await scene.resource((), is_declared=False)
    key_id = await scene.key("active", bot)
    async with store.bare_transaction() as connection:
        await connection.fetch("SELECT FROM smarter_auth.resource FOR UPDATE")
        acts = asyncio.gather(imports("inactive", bot), scene.keys.revoke(key_id, unbind=True), return_exceptions=True)
        async with asyncio.timeout(30):
            while await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
                await asyncio.sleep(0.01)
    imported, revoked = await acts
    assert isinstance(imported, Ran)
    assert (imported.exit_code == 0) is not isinstance(revoked, Key), (imported, revoked)
    assert await scene.is_protected(bot)
