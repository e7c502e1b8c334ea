"""Pages of lists as answers: items, the cursor of the next page, and a Link to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smarter_auth_mw.admin.call import Answer

NEXT = "next-cursor"
"""An internal header from which the API makes the Link header, since only the API knows the query."""


def page_answer(documents: Sequence[Mapping[str, Any]], cursor: str | None, *, as_lines: bool = False) -> Answer:
    """Return a page; ``as_lines`` sends one document per line."""
    headers = () if cursor is None else ((NEXT, cursor),)
    if as_lines:
        return Answer(headers=headers, lines=list(documents))
    return Answer({"items": list(documents), "next": cursor}, headers=headers)
