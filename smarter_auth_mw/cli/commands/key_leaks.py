"""`smarter-auth key revoke --token-file`: revoke the keys of leaked tokens, without printing a token."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session, os_user
from smarter_auth_mw.errors import UsageError, counted
from smarter_auth_mw.management.leaks import copied_token, copied_words
from smarter_auth_mw.management.operators import Doorkeeper
from smarter_auth_mw.postgres.opening import open_store
from smarter_auth_mw.tokens import Token


async def revoke_leaked(session: Session, path: str) -> dict[str, Any]:
    """Revoke the keys of the file's tokens, one token per line; exit code 1 if a token belongs to no key."""
    tokens = _tokens_in(path)
    operators = list(dict.fromkeys(token.digest for token in tokens if token.is_operators))
    async with open_store(session.database_settings) as store:
        ended = await Doorkeeper(store).end_tokens(operators, None, session.actor or os_user()) if operators else 0
        leaked = await session.keys_of(store).revoke_tokens(token for token in tokens if not token.is_operators)
    if ended:
        note(f"Operators' tokens that were ended: {ended}.")
    unknown = leaked.unknown + len(operators) - ended
    if unknown:
        note(f"{unknown} of {counted(len(tokens), 'token')} {'belongs' if unknown == 1 else 'belong'} to no key.")
        session.exit_code = 1
    revoked = [{"key_id": str(key.key_id), "name": key.name, "account": key.account} for key in leaked.keys]
    return {"tokens": len(tokens), "unknown": unknown, "operator_tokens_ended": ended, "revoked": revoked}


def _tokens_in(path: str) -> list[Token]:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"The token file {path!r} cannot be read: {error.strerror}.") from None
    tokens = [copied_token(line) for line in data.splitlines() if copied_words(line)]
    if not tokens:
        raise UsageError("There is no token to revoke.", hint="Write one token per line.")
    return tokens
