"""After a flood of notifications, or forged ones, nothing is listened to for a while, and longer each time."""

from __future__ import annotations

import pytest

from smarter_auth_mw.cache.attention import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_A_SECOND,
    MOST_UNFOUNDED,
    RECURS_WITHIN_S,
    Attention,
)


class World:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.attention = Attention(lambda: self.now_s)

    def flood(self) -> None:
        for _ in range(MOST_A_SECOND):
            assert self.attention.takes()
        assert not self.attention.takes()

    def pause_s(self) -> float:
        """Move the clock until attention is given again."""
        began_s = self.now_s
        while not self.attention.is_given:
            self.now_s += 0.5
        return self.now_s - began_s


@pytest.fixture
def world() -> World:
    return World()


def test_a_busy_second_is_taken_whole_and_so_is_the_next(world: World) -> None:
    assert MOST_A_SECOND >= 512
    for _ in range(5 * MOST_A_SECOND):
        world.now_s += 1 / 512  # A number that floats add up exactly.
        assert world.attention.takes()
    assert world.attention.is_given


def test_one_more_than_that_is_not_taken_and_none_is_for_a_while(world: World) -> None:
    world.flood()
    assert not world.attention.is_given
    assert not world.attention.takes()
    assert world.pause_s() == FIRST_PAUSE_S
    assert world.attention.takes()


def test_each_flood_that_follows_soon_doubles_the_pause(world: World) -> None:
    pauses_s = []
    for _ in range(8):
        world.flood()
        pauses_s.append(world.pause_s())
    assert pauses_s == [1, 2, 4, 8, 16, 32, 64, LONGEST_PAUSE_S]


def test_a_flood_that_was_long_ago_is_forgotten(world: World) -> None:
    for _ in range(3):
        world.flood()
        world.pause_s()
    world.now_s += RECURS_WITHIN_S
    world.flood()
    assert world.pause_s() == FIRST_PAUSE_S


def test_few_forgeries_are_borne_and_more_are_not(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.attention.beaten(MOST_UNFOUNDED)
    assert world.pause_s() == 0
    world.attention.beaten(MOST_UNFOUNDED + 1)
    assert world.pause_s() == FIRST_PAUSE_S
    assert [line.partition(":")[0] for line in caplog.messages] == ["listener.flooded"]


def test_what_comes_out_while_nobody_listens_makes_the_pause_no_longer(world: World) -> None:
    world.flood()
    world.attention.beaten(MOST_A_SECOND)
    assert world.pause_s() == FIRST_PAUSE_S
