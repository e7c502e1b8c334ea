"""The session parameters of all connections."""

from __future__ import annotations

READ_COMMITTED = {"default_transaction_isolation": "read committed"}
"""Set whatever the database's default is: a serializable reader makes serializable writers fail."""
PLANS = {"jit": "off", "plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1"}
"""The statements find their rows by index and in memory: compiling or replanning them costs more than it saves, and
so do the full table scans that look cheap with a few thousand keys."""
SESSION = PLANS | READ_COMMITTED

MAX_TIMEOUT_MS = 2**31 - 1


def timeouts(query_timeout_s: float) -> dict[str, str]:
    """Return the timeouts after which the server ends a statement, and, a little earlier, a wait for a lock."""
    timeout_ms = max(2, round(min(query_timeout_s * 1000, MAX_TIMEOUT_MS)))
    return {"statement_timeout": str(timeout_ms), "lock_timeout": str(timeout_ms * 9 // 10)}


def patience_s(query_timeout_s: float) -> float:
    """Return how long to wait for an answer: longer than the server's own timeout, to receive its error."""
    return query_timeout_s + min(1.0, query_timeout_s / 2)
