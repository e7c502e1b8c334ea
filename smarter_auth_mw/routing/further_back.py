"""A path that no line names, and that would be a resource behind one of its slashes: what to write to settle it."""

from __future__ import annotations

import re
from typing import NamedTuple

from smarter_auth_mw.routing.grammar import ANY_SEGMENT, Pattern

_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_PLACEHOLDER = re.compile(r"\{[^/{}]*\}")


class Remedies(NamedTuple):
    """The lines that settle such a path, one for each thing that it may be."""

    same: str | None
    """A line of ROUTES for the same resource at this prefix; None where no line can say that prefix."""
    mount: str
    """The prefix, as MOUNTS takes it, if the app takes it off by itself."""
    none: str
    """The narrowest ``none`` line, if it is another thing."""


class FurtherBack(NamedTuple):
    """The pattern that such a path matches once ``prefix`` is taken off; ``prefix`` ends before one of its slashes."""

    pattern: Pattern
    prefix: str

    def remedies(self, template: str = "") -> Remedies:
        """What to write; ``template`` is the path of the app's route, ``/{organization}/incidents/{id}``, if known."""
        count = self.prefix.count("/")
        known = template.split("/")[1 : count + 1]
        segments = known if len(known) == count else self.prefix.split("/")[1:]
        is_literal = all(map(_LITERAL.fullmatch, segments))
        same = f"{self.pattern.kind} /{'/'.join(segments)}{self.pattern.text}" if is_literal else None
        mount = "".join("/" + _mount_segment(segment) for segment in segments)
        words = [ANY_SEGMENT if not _LITERAL.fullmatch(segment) else segment for segment in segments]
        words += [word or ANY_SEGMENT for word in self.pattern.head[:-1]]
        return Remedies(same, mount, f"none /{'/'.join(words)}/**")


def _mount_segment(segment: str) -> str:
    return segment if _LITERAL.fullmatch(segment) or _PLACEHOLDER.fullmatch(segment) else ANY_SEGMENT
