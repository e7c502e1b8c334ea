"""TLS to a real server: verified where that is asked for, and nobody's certificates where HOME cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.postgres.connections.connector import Connector
from tests.support.plain_postgres import OWNER, PlainPostgres, installed
from tests.support.tls_server import tls_postgres

MODES = ("allow", "prefer", "require", "no-verify")


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[PlainPostgres, Path]]:
    with tls_postgres() as started:
        yield started


@pytest.fixture(scope="module")
def plain() -> Iterator[PlainPostgres]:
    with PlainPostgres([*installed().values()][-1]).made() as server:
        yield server


async def is_encrypted(url: str) -> bool:
    connection: Any = await Connector(url).connect()
    try:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await connection.close()


def url_of(server: PlainPostgres, options: str) -> str:
    return f"{server.url('postgres', OWNER)}?{options}"


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("", True),
        ("sslmode=disable", False),
        ("sslmode=allow", False),
        ("sslmode=prefer", True),
        ("sslmode=require", True),
        ("ssl=true", True),
        ("sslmode=require&ssl_min_protocol_version=TLSv1.3", True),
        ("sslmode=verify-ca&sslrootcert=AUTHORITY", True),
        ("sslmode=verify-full&sslrootcert=AUTHORITY", True),
        ("channel_binding=require&sslrootcert=AUTHORITY", True),
        ("channel_binding=prefer", True),
    ],
)
async def test_a_server_with_tls_is_spoken_to_as_the_url_says(
    secured: tuple[PlainPostgres, Path], options: str, encrypted: bool
) -> None:
    server, authority = secured
    assert await is_encrypted(url_of(server, options.replace("AUTHORITY", str(authority)))) == encrypted


@pytest.mark.parametrize("options", ["", "sslmode=disable", "sslmode=allow", "sslmode=prefer"])
async def test_a_server_without_tls_is_spoken_to_where_the_url_allows_it(plain: PlainPostgres, options: str) -> None:
    assert not await is_encrypted(url_of(plain, options))


@pytest.mark.parametrize("options", ["sslmode=require", "channel_binding=require"])
async def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(plain: PlainPostgres, options: str) -> None:
    with pytest.raises(UnavailableError, match=f"offers no TLS, and {options[:7]}"):
        await is_encrypted(url_of(plain, options))


@pytest.mark.parametrize(
    "options", ["channel_binding=require", "sslrootcert=system", "sslmode=require&sslrootcert=OTHER"]
)
async def test_a_certificate_that_nobody_vouches_for_is_refused_and_says_what_to_name(
    secured: tuple[PlainPostgres, Path], other_authority: Path, options: str
) -> None:
    server, _ = secured
    with pytest.raises(UnavailableError, match="certificate that is not trusted") as refused:
        await is_encrypted(url_of(server, options.replace("OTHER", str(other_authority))))
    assert "sslrootcert" in refused.value.hint


@pytest.fixture
def other_authority(tmp_path: Path) -> Path:
    from tests.support.tls_server import make_certificate

    return make_certificate(tmp_path)[0]


@pytest.mark.parametrize("option", ["sslrootcert", "sslcert", "sslcrl"])
async def test_a_file_that_is_missing_is_named(secured: tuple[PlainPostgres, Path], option: str) -> None:
    server, authority = secured
    options = f"sslmode=verify-full&sslrootcert={authority}&{option}=/nowhere/file.pem"
    with pytest.raises(UnavailableError, match=f"{option}=/nowhere/file.pem cannot be read: No such file"):
        await is_encrypted(url_of(server, options))


async def test_a_file_that_is_no_certificate_is_named(secured: tuple[PlainPostgres, Path], tmp_path: Path) -> None:
    (file := tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(UnavailableError, match="is not a file of certificates"):
        await is_encrypted(url_of(secured[0], f"sslmode=verify-full&sslrootcert={file}"))


async def test_verification_without_an_authority_says_what_to_name(secured: tuple[PlainPostgres, Path]) -> None:
    with pytest.raises(UnavailableError, match="none is given") as refused:
        await is_encrypted(url_of(secured[0], "sslmode=verify-full"))
    assert "sslrootcert=system" in refused.value.hint


async def test_a_home_that_this_user_may_not_read_is_done_without(
    secured: tuple[PlainPostgres, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def may_not(path: Path, *arguments: Any, **more: Any) -> Any:
        if ".postgresql" in str(path):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", may_not)
    monkeypatch.setattr(Path, "exists", lambda path: may_not(path).close() is None)
    assert await is_encrypted(url_of(secured[0], ""))
