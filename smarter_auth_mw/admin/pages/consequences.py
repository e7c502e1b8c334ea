"""The effect of an act: how many keys open a resource before it and after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from smarter_auth_mw.admin.call import INNER
from smarter_auth_mw.decision import Require, is_protected
from smarter_auth_mw.domain import Binding, Bindings, Key, KeyState, Protection, RegisteredResource, Resource


class Outlook:
    """A resource and its keys as they are now; more than ten keys are not counted."""

    def __init__(self, found: RegisteredResource, require: Require, now: datetime) -> None:
        self.resource = found.resource
        self._found = found
        self._require: Require = require
        self._now = now

    def without(self, key: Key, *, is_unbound: bool = False) -> Outcome:
        """Say what is left when the key no longer opens the resource, or is unbound."""
        keys = self._found.keys
        others = [one for one in keys if one.key_id != key.key_id]
        after = (
            others if is_unbound else [*others, *(replace(one, is_active=False) for one in keys if one not in others)]
        )
        is_released = is_unbound and not others and self._found.protection is Protection.BOUND
        protection = Protection.OPEN if is_released else self._found.protection
        return Outcome(
            self.resource,
            self._openers(keys),
            self._openers(others),
            self._is_protected(self._found.protection, keys),
            self._is_protected(protection, after),
        )

    def _openers(self, keys: Sequence[Key]) -> int:
        return sum(opens(key, self._now) for key in keys)

    def _is_protected(self, protection: Protection, keys: Sequence[Key]) -> bool:
        bindings = tuple(
            Binding(str(key.key_id), "", "", b"", "", key.is_active, key.revoked_at is not None, True, math.inf)
            for key in keys
        )
        return is_protected(
            Bindings(self.resource, "", protection, bindings=bindings), always=False, require=self._require
        )


class Outcome:
    """The effect of an act on one resource."""

    def __init__(self, resource: Resource, before: int, after: int, was_protected: bool, is_protected: bool) -> None:  # noqa: FBT001
        self.resource = resource
        self.is_opened = was_protected and not is_protected
        self._before, self._after, self._is_protected = before, after, is_protected

    @property
    def text(self) -> str:
        """Describe the effect in two sentences."""
        before = f"{_keys(self._before)} {'opens' if self._before == 1 else 'open'} {self.resource}."
        if self._after:
            return f"{before} After this {_count(self._after)} {'does' if self._after == 1 else 'do'}."
        rest = "it stays closed" if self._is_protected else "it is open to anyone, without a token"
        return f"{before} After this, no key does, and {rest}."


def opens(key: Key, now: datetime) -> bool:
    """Return whether the key opens what it is bound to now."""
    return key.state(now) is KeyState.ACTIVE and any(token.is_valid(now) for token in key.tokens)


def _keys(count: int) -> str:
    return "1 key" if count == 1 else f"{_count(count)} keys"


def _count(count: int) -> str:
    if count > INNER:
        return f"more than {INNER}"
    return "no" if count == 0 else str(count)
