"""The patterns that scanners are given find every token of ours, and nothing that only looks alike."""

from __future__ import annotations

import random
import re
import runpy
import string
from pathlib import Path

import pytest

from smarter_auth_mw.tokens import mint, mint_operator_token
from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "reference" / "token_pattern.md").read_text("utf-8")
PATTERNS = re.findall(r"(?:regex = |token: |secret format\s)['`]+([^'`\n]+)", PAGE)
SCRIPT = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
LETTERS = string.digits + string.ascii_letters


@pytest.fixture(params=PATTERNS)
def pattern(request: pytest.FixtureRequest) -> re.Pattern[str]:
    return re.compile(str(request.param))


def test_the_page_has_three_patterns() -> None:
    assert len(PATTERNS) == 3


def test_each_pattern_finds_every_token(pattern: re.Pattern[str]) -> None:
    for number in range(1000):
        minted = mint_operator_token() if number % 4 == 3 else mint("checked", ("", "test", "a2345678")[number % 4])
        token = minted.reveal()
        found = pattern.search(f'export TOKEN="{token}"')
        assert found is not None
        assert found[0] == token


def test_each_pattern_passes_what_only_begins_alike(pattern: re.Pattern[str]) -> None:
    rng = random.Random(7)
    for _ in range(10_000):
        length = rng.choice([n for n in range(80) if n < 49])
        text = (
            rng.choice(
                ["sm_", "SM_", "sm-", "som_", "sm_test_", "sm_Test_", "sm_test-", "sm_production_", "sma_", "smb_"]
            )
            + "".join(rng.choices(LETTERS, k=length))
            + rng.choice(" .,;")
        )
        assert pattern.search(text) is None


def test_the_checksum_tells_tokens_from_look_alikes(tmp_path: Path) -> None:
    assert SCRIPT is not None
    (script := tmp_path / "checksum.py").write_text(SCRIPT[1])
    has_right_checksum = runpy.run_path(str(script))["has_right_checksum"]
    rng = random.Random(7)
    assert all(has_right_checksum(mint_operator_token().reveal()) for _ in range(1000))
    for head, prefix in (("sm_", ""), ("sm_test_", "test")):
        assert all(has_right_checksum(mint("checked", prefix).reveal()) for _ in range(1000))
        assert not any(has_right_checksum(head + "".join(rng.choices(LETTERS, k=49))) for _ in range(10_000))
