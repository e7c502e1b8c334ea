"""The format and prefix of a new token: the requested ones, or those of the key's previous token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.tokens import Token, TokenFormat, form_of, is_prefix, mint, prefix_of


def minter(form: TokenFormat | None, prefix: str | None, previous: str = "") -> Callable[[], Token]:
    """Return a function that mints tokens. ``previous`` is the public head of the token that a new one replaces.

    A prefix implies the format ``checked``. Raises ``UsageError`` for a prefix with another format, and for one that is
    not 1 to 8 lower-case letters and digits, beginning with a letter.
    """
    if prefix and not is_prefix(prefix):
        raise UsageError(
            f"The prefix {prefix!r} cannot be used.",
            hint="A prefix has 1 to 8 characters: a to z, then also 0 to 9. For example: --prefix test",
        )
    if prefix and form == "knox":
        raise UsageError("Tokens of the format knox have no prefix.", hint="Leave out --format, or --prefix.")
    if form == "knox" or not (form or prefix or form_of(previous) == "checked"):
        return partial(mint, "knox")
    return partial(mint, "checked", prefix_of(previous) if prefix is None else prefix)
