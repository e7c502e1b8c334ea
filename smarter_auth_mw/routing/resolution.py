"""The result of resolving a request, and how two results are combined."""

from __future__ import annotations

from typing import NamedTuple

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Alias, Target
from smarter_auth_mw.tokens import shortened

SHOWN_CHARS = 120


class Judgement(NamedTuple):
    """The target of a request, with the line and the reading that decided."""

    result: Target | Denial | None
    line: str = ""
    reading: str = ""


NOTHING = Judgement(None)


def agree(one: Judgement, other: Judgement) -> Judgement:
    """Combine two judgements: a refusal wins, one resource wins over none, and two resources are refused."""
    if other.result is None or isinstance(one.result, Denial):
        return one
    if one.result is None or isinstance(other.result, Denial):
        return other
    return _both(one, other, one.result, other.result)


def _both(one: Judgement, other: Judgement, mine: Target, yours: Target) -> Judgement:
    if not _may_be_one(mine, yours) or (mine.account and yours.account and mine.account != yours.account):
        detail = f"{one.line} names {mine.names}, and {other.line} names {yours.names}"
        return refused(detail, one.reading, Reason.AMBIGUOUS)
    account, always, exact = mine.account or yours.account, mine.always or yours.always, mine.exact or yours.exact
    also = mine.also or yours.also or (None if mine.names == yours.names else Target(yours.names))
    return one._replace(result=Target(mine.names, account, always, exact, also))


def _may_be_one(mine: Target, yours: Target) -> bool:
    """Return whether both may be one resource for the directory: two forms of alias, or one and a reference."""
    if mine.names == yours.names:
        return mine.also is None or yours.also is None or mine.also == yours.also
    forms = {names.form if isinstance(names, Alias) else None for names in (mine.names, yours.names)}
    return mine.names.kind == yours.names.kind and len(forms) == 2 and mine.also is None and yours.also is None


def refused(detail: str, text: str, reason: Reason = Reason.NOT_CANONICAL) -> Judgement:
    """Return a refusal because ``text`` can be read in more than one way, with a detail for operators."""
    return Judgement(refusal(detail, text, reason), reading=text)


def refusal(detail: str, text: str, reason: Reason = Reason.NOT_CANONICAL) -> Denial:
    return Denial(reason, detail=f"{shown(text)}: {detail}")


def shown(text: str) -> str:
    """Return a client's text for operators: without tokens, shortened, and escaped."""
    return ascii(shortened(text, SHOWN_CHARS))
