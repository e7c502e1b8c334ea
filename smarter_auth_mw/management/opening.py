"""The one place that decides whether an act of the write side opens a protected resource, and refuses it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from smarter_auth_mw.decision import Require, is_protected
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import WouldOpenError, counted
from smarter_auth_mw.postgres.transaction import Transaction

MayOpen = bool | Collection[Resource]
"""The resources that an act may open: all (True), none (False), or only these."""

_SHOWN = 3


@asynccontextmanager
async def judged(
    transaction: Transaction, resources: Sequence[Resource], require: Require, *, allow_anonymous: MayOpen
) -> AsyncIterator[None]:
    """Do an act on resources, which are locked, in the block; refuse it if it opens one not in ``allow_anonymous``.

    An act opens a resource that was protected before it and is not afterwards. Raises ``WouldOpenError`` after the
    act, which must end the transaction.
    """
    if allow_anonymous is True:
        yield
        return
    before = await _protected(transaction, resources, require)
    yield
    opened = sorted(before - await _protected(transaction, resources, require) - set(allow_anonymous or ()))
    if opened:
        raise WouldOpenError(
            f"This would open {_listed(opened)} to anyone.",
            hint="To allow it: --allow-anonymous, or allow_anonymous=True."
            f" Otherwise, protect it first: smarter-auth resource protect {opened[0]}",
            opened=tuple(opened),
        )


async def _protected(transaction: Transaction, resources: Sequence[Resource], require: Require) -> set[Resource]:
    found = await transaction.closures(resources) if resources else ()
    return {one.resource for one in found if is_protected(one, require=require)}


def _listed(opened: Sequence[Resource]) -> str:
    others = len(opened) - _SHOWN
    return ", ".join(map(str, opened[:_SHOWN])) + (f" and {counted(others, 'other')}" if others > 0 else "")
