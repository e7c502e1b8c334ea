"""The blocks of code in what people read, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n\s*)?"
    r"^(?P<fence>`{3,})(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"\A(?:#|--|//) (?P<name>[\w./-]*\.\w+)\n")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``reason`` says why nobody runs it."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None = None

    @property
    def file(self) -> str | None:
        """The file that it is, by a comment in its first line."""
        found = _FILE.match(self.text)
        return found["name"] if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """All that people read."""
    return [*ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md"), *sorted(ROOT.glob("docs/**/*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of code of a page, in order; Sphinx's directives are none."""
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, found.start("fence")) + 1, found["language"], found["text"], found["reason"])
        for found in _FENCE.finditer(text)
        if found["language"]
    ]


def commands(text: str) -> Iterator[str]:
    """The commands of a shell block: a line each, or several where a quote, a backslash or a document goes on."""
    command, ends = "", None
    for line in text.splitlines():
        command += line + "\n"
        if ends is None and (heredoc := _HEREDOC.search(line)):
            ends = heredoc[1]
            continue
        if ends is not None and ends != line.strip():
            continue
        if ends is not None or not (line.endswith("\\") or _is_quoted(command)):
            if command.strip() and not command.startswith("#"):
                yield command.strip()
            command, ends = "", None


def conversations(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        command = lines.pop(0)
        while lines and (command.endswith("\\") or _is_quoted(command)):
            command += "\n" + lines.pop(0).removeprefix("> ")
        yield command, "\n".join(lines)


def _is_quoted(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def matches(expected: str, printed: str) -> bool:
    """Whether it was printed so: ``…`` stands for anything in its line, or for any lines where it stands alone."""
    lines = [line.rstrip() for line in expected.strip("\n").splitlines()]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(map(re.escape, line.split("…"))) + r"[ \t]*\n"
        for line in lines
    )
    return re.fullmatch(pattern, printed.strip("\n") + "\n" if printed.strip() else "") is not None
