"""Docs, help and source avoid phrases that read as if translated.

``python -m tests.docs.test_words [DIRECTORY]`` counts them.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples", "benchmarks"),
    "smarter_auth_mw",
)
KINDS = (".py", ".md", ".sql", ".html", ".yml", ".conf", ".toml")

PHRASES = {
    "is told": r"(?:is|are|was|were|be|been) told",
    "tells of, tells apart": r"(?:tells?|telling) (?:of|apart|whether|which|how|that|what)",
    "a program tells": r"(?:it|log|error|heartbeat|doctor|header|setting|command|trigger|middleware|database) tells",
    "is heard": r"(?:hears?|heard) (?:of|from)|(?:is|are|was|were|be|been) heard|go unheard",
    "stands": r"(?:stands?|stood|standing) (?:in|at|there|beside|behind|around|outside|inside|twice)",
    "in the place of": r"in the place of",
    "mends": r"mends?|mending",
    "one of a kind": r"one of a kind",
    "none of ours": r"none of (?:ours|its|theirs)|is none of|whatever is none|has none any more",
    "for ever": r"for ever",
    "anew": r"anew",
    "at the most": r"at the (?:most|least)",
    "besides": r"besides",
    "whoever": r"whoever",
    "that which": r"that which",
    "by which": r"by which",
    "walked around": r"walked around",
    "goes by": r"go(?:es|ne) by|time gone by",
    "seen this once": r"(?:seen|shown) this once",
    "if that is meant": r"that is meant",
    "nobody whose": r"nobody whose|somebody's",
    "longer than the calendar": r"(?:than|behind) the calendar",
    "at hand": r"(?:at|to) hand|hand(?:s|ed|ing)? on",
    "given out again": r"give(?:s|n)? out again",
    "goes on serving": r"(?:go|goes|going) on (?!to\b)",
    "once more": r"once more",
    "so many": r"so (?:many|much) (?!as)",
    "is no text": r"(?<!there )(?:is|are) no (?:text|key|lie|resource|id)s?",
    "as it should": r"as it should",
    "held against": r"held against",
    "takes off": r"(?:takes?|taken|taking) (?:it )?off",
    "is asked for": r"(?:is|are|was|were|be) asked (?:for|in turn|again)",
    "it wants": r"`? wants",
    "somebody": r"somebody",
    "the like": r"the like|no like|its like",
    "a great account": r"great (?:account|resource)s?",
    "the least of several": r"the (?:least|greatest) of",
    "Exit 1 where": r"exits? 1 where",
    "a docstring that needs its neighbour": r'"""(?:Of|By which|That|The same|Those|For who|As it|What|Whether|Who)\b',
}
"""Regular expressions, each between the ends of words, in any case, by names for people."""

SEARCH = re.compile(
    "|".join(rf"(?P<_{place}>(?<!\w)(?:{pattern})(?!\w))" for place, pattern in enumerate(PHRASES.values())),
    re.IGNORECASE,
)


def documents(root: Path) -> Iterator[Path]:
    """Yield what people read; the SQL of migrations never changes."""
    for place in PLACES:
        path = root / place
        for found in [path] if path.is_file() else sorted(path.rglob("*")):
            if found.suffix in KINDS and "versions" not in found.parts:
                yield found


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines of text, with their numbers; of Python the strings and comments."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield from enumerate(token.string.splitlines(), token.start[0])


def faults(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each phrase that was found, by its name, with the line."""
    for path in documents(root):
        for number, line in prose(path):
            if found := SEARCH.search(line):
                name = list(PHRASES)[int(str(found.lastgroup)[1:])]
                yield name, f"{path.relative_to(root)}:{number}: {line.strip()}"


def test_no_text_reads_as_if_translated() -> None:
    assert [f"{line} ({name})" for name, line in faults(ROOT)] == []


@pytest.mark.parametrize(
    "line", ["The worker is told of it.", "A key stands in the audit.", "whoever asks", "built anew", "one of a kind"]
)
def test_such_a_phrase_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "README.md").write_text(f"# Title\n\n{line}\n", "utf-8")
    assert [found for _, found in faults(tmp_path)] == [f"README.md:3: {line}"]


def test_a_docstring_that_cannot_be_read_alone_is_found(tmp_path: Path) -> None:
    (tmp_path / "smarter_auth_mw").mkdir()
    (tmp_path / "smarter_auth_mw/one.py").write_text('def same() -> None:\n    """The same for hosts."""\n', "utf-8")
    assert [name for name, _ in faults(tmp_path)] == ["a docstring that needs its neighbour"]


if __name__ == "__main__":
    counts = Counter(name for name, _ in faults(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
    for name, count in counts.most_common():
        print(f"{count:5} {name}")
    print(f"{counts.total():5} in all")
