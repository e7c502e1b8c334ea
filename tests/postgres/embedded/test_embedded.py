"""The life of an embedded PostgreSQL: fourteen scenarios, each as root, as an ordinary user and as nobody.

All run for real: processes that use the server start, leave, are killed, and so are the server and its keeper.
What is left is read off the locks, which the kernel keeps. Who is not root tries them as oneself only.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.embedded import Outfit, Place, answers, is_held, names, outfitted, query, wait_for, wait_until_quiet


def both_roles_connect_as_themselves(place: Place) -> None:
    told = place.start().told
    assert query(told["owner"], "SELECT current_user") == "smarter_auth_owner"
    assert (
        query(told["runtime"], "SELECT current_user || '@' || current_database()")
        == "smarter_auth_runtime@smarter_auth"
    )


def the_runtime_role_has_no_rights_of_its_own(place: Place) -> None:
    rights = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles"
    told = place.start().told
    assert query(told["runtime"], f"{rights} WHERE rolname = current_user") is False
    assert query(told["owner"], f"{rights} WHERE rolname = current_user") is True


def data_and_socket_are_private_and_no_other_mode_changes(place: Place) -> None:
    before = modes(place.directory)
    place.start()
    assert modes(place.directory) == before
    assert {path.stat().st_mode & 0o777 for path in (place.home / "data", place.home / "socket")} == {0o700}


def eight_at_once_make_one_cluster(place: Place) -> None:
    users = [place.begin() for _ in range(8)]
    assert {user.told.get("home") for user in users} == {str(place.home)}, [user.told for user in users]
    assert (place.home / "server.log").read_text().count("running bootstrap script") == 1
    for user in users[:4]:
        user.kill()
    for user in users[4:]:
        user.ask("stop")
    assert not is_held(place.home / "server.lock")


def the_server_stays_for_the_second_user_and_stops_with_it(place: Place) -> None:
    first, second = place.start(), place.start()
    postmaster = place.postmaster()
    first.ask("stop")
    assert place.postmaster() == postmaster
    assert answers(second.told["runtime"])
    second.ask("stop")
    assert not is_held(place.home / "server.lock")


def a_killed_user_takes_the_server_along_only_when_it_was_the_last(place: Place) -> None:
    first, second = place.start(), place.start()
    first.kill()
    assert answers(second.told["runtime"])
    second.kill()


def a_killed_server_is_started_again_with_all_it_had_committed(place: Place) -> None:
    told = place.start().told
    query(told["owner"], "CREATE TABLE kept_by_the_server AS SELECT 42 AS answer")
    kill_and_wait(place.postmaster(), lambda: place.postmaster() and answers(told["owner"]))
    assert query(told["owner"], "SELECT answer FROM kept_by_the_server") == 42


def a_killed_keeper_is_replaced_by_its_relief(place: Place) -> None:
    user = place.start()
    for _ in range(3):
        wait_for(place.relief, "the keeper's relief")
        killed = place.keeper()
        kill_and_wait(killed, lambda killed=killed: place.keeper() not in {0, killed})  # type: ignore[misc]
    assert answers(user.told["runtime"])


def a_killed_keeper_and_its_relief_are_replaced_by_the_next_user(place: Place) -> None:
    first = place.start()
    killed = place.kill_keeper()
    second = place.start()
    assert place.keeper() not in {0, killed}
    first.kill()
    second.kill()


def the_server_stops_when_its_last_user_and_its_keeper_are_killed(place: Place) -> None:
    user = place.start()
    wait_for(place.relief, "the keeper's relief")
    os.kill(place.keeper(), signal.SIGKILL)
    user.kill()
    wait_until_quiet(place.home)


def the_last_user_stops_the_server_without_a_keeper_too(place: Place) -> None:
    user = place.start()
    place.kill_keeper()
    user.ask("stop")


def a_start_after_everything_was_killed_finds_all_that_was_committed(place: Place) -> None:
    user = place.start()
    query(user.told["owner"], "CREATE TABLE kept AS SELECT 42 AS answer")
    for pid in (place.keeper(), place.postmaster(), user.process.pid):
        os.kill(pid, signal.SIGKILL)
    assert query(place.start().told["owner"], "SELECT answer FROM kept") == 42


def a_cluster_that_was_half_made_is_made_anew(place: Place) -> None:
    made, half_made = place.home / "data", place.home / "data.new"
    while True:
        user = place.begin()
        wait_for(lambda: made.exists() or (half_made / "PG_VERSION").exists(), "initdb at work")
        user.kill()
        if not made.exists():
            break
        place.end()  # This process was too late: once more.
        shutil.rmtree(place.home)
    assert answers(place.start().told["runtime"])
    assert not half_made.exists()


def a_forked_child_uses_the_server_and_an_executed_one_does_not(place: Place) -> None:
    user = place.start()
    user.child("exec")
    forked = user.child("fork")
    user.ask("stop")
    user.kill()
    assert is_held(place.home / "users.lock")
    assert answers(user.told["runtime"])
    os.kill(forked, signal.SIGKILL)


COLD = [
    data_and_socket_are_private_and_no_other_mode_changes,
    eight_at_once_make_one_cluster,
    a_cluster_that_was_half_made_is_made_anew,
]
"""In a directory that does not exist yet."""
WARM = [
    both_roles_connect_as_themselves,
    the_runtime_role_has_no_rights_of_its_own,
    the_server_stays_for_the_second_user_and_stops_with_it,
    a_killed_user_takes_the_server_along_only_when_it_was_the_last,
    a_killed_server_is_started_again_with_all_it_had_committed,
    a_killed_keeper_is_replaced_by_its_relief,
    a_killed_keeper_and_its_relief_are_replaced_by_the_next_user,
    the_server_stops_when_its_last_user_and_its_keeper_are_killed,
    the_last_user_stops_the_server_without_a_keeper_too,
    a_start_after_everything_was_killed_finds_all_that_was_committed,
    a_forked_child_uses_the_server_and_an_executed_one_does_not,
]
"""In one directory, one after the other."""


@pytest.fixture(scope="module", params=names())
def outfit(request: pytest.FixtureRequest) -> Iterator[Outfit]:
    with outfitted(request.param) as outfit:
        yield outfit


@pytest.fixture(scope="module")
def warm(outfit: Outfit) -> Iterator[Place]:
    with Place(outfit, outfit.home / "warm") as place:
        yield place


@pytest.mark.parametrize("scenario", COLD, ids=lambda scenario: scenario.__name__)
def test_in_a_new_directory(outfit: Outfit, scenario: Callable[[Place], None]) -> None:
    with Place(outfit, outfit.home / scenario.__name__[:20]) as place:
        run(scenario, place)


@pytest.mark.parametrize("scenario", WARM, ids=lambda scenario: scenario.__name__)
def test_in_a_used_directory(warm: Place, scenario: Callable[[Place], None]) -> None:
    run(scenario, warm)


def run(scenario: Callable[[Place], None], place: Place) -> None:
    """Run it, and see that when its users have gone nothing is left."""
    try:
        scenario(place)
    finally:
        place.end()


def modes(directory: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode for path in directory.parents}


def kill_and_wait(pid: int, condition: Callable[[], object]) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(condition, f"what follows the kill of {pid}")
