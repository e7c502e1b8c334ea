"""The memo: bounded, and kind to what is asked for often."""

from __future__ import annotations

from smarter_auth_mw.routing.memo import UNKNOWN, Memo


def test_none_is_an_answer_too() -> None:
    memo: Memo[str] = Memo()
    assert memo.recall("a") is UNKNOWN
    memo.remember("a", None)
    assert memo.young["a"] is None


def test_flood_does_not_make_it_grow_and_what_is_asked_for_outlives_it() -> None:
    memo: Memo[str] = Memo(entries=8)
    memo.remember("hot", 1)
    for number in range(40):
        memo.remember(str(number), None)
        if number % 3 == 0:
            assert memo.young.get("hot", UNKNOWN) == 1 or memo.recall("hot") == 1
        assert len(memo) <= 8
    assert memo.recall("0") is UNKNOWN
