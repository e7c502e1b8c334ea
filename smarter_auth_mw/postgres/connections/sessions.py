"""What our sessions ask of PostgreSQL beyond its defaults."""

from __future__ import annotations

READ_COMMITTED = {"default_transaction_isolation": "read committed"}
"""Whatever the database's own default is: a serializable reader makes serializable writers fail."""
PLANS = {"jit": "off", "plan_cache_mode": "force_generic_plan", "random_page_cost": "1.1"}
"""Our statements find their rows by index, and what they read is in memory: compiling them or planning them again costs
more than it saves, and so do the scans of whole tables that look cheap where there are a few thousand keys."""
SESSION = PLANS | READ_COMMITTED

MAX_TIMEOUT_MS = 2**31 - 1


def timeouts(query_timeout_s: float) -> dict[str, str]:
    """Have the server end a statement that takes too long, and one that waits for a lock a little earlier."""
    timeout_ms = max(2, round(min(query_timeout_s * 1000, MAX_TIMEOUT_MS)))
    return {"statement_timeout": str(timeout_ms), "lock_timeout": str(timeout_ms * 9 // 10)}


def patience_s(query_timeout_s: float) -> float:
    """How long to wait for an answer: longer than the server takes to give up, since its reason may be under way."""
    return query_timeout_s + min(1.0, query_timeout_s / 2)
