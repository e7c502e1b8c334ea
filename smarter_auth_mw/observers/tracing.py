"""OpenTelemetry (the extra ``otel``): the decision as attributes of the request's span, and a span for waiting.

===============================  ==============================================================
attribute                        value
===============================  ==============================================================
``smarter_auth.decision``        ``grant``, ``anonymous`` or ``deny``
``smarter_auth.reason``          why it was denied: a ``Reason``
``smarter_auth.resource.kind``   the resource's kind
``smarter_auth.resource.ref``    its reference, if it is registered
``smarter_auth.account``         its account, likewise
``smarter_auth.key.id``          the key that was accepted, or whose token was refused
===============================  ==============================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, ParamSpec

from opentelemetry import trace

from smarter_auth_mw.decision import Decision, Denial, Grant

SPAN = "smarter_auth.authenticate"
"""The span of a decision that waits for the cache, the database, or connections."""

P = ParamSpec("P")


def is_on() -> bool:
    """Return whether the process has a trace provider."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def observe(decision: Decision, _scope: Mapping[str, Any]) -> None:
    """Set the decision's attributes on the current span, which is the server's."""
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attributes(dict(_attributes(decision)))


def traced(authenticate: Callable[P, Awaitable[Decision]]) -> Callable[P, Awaitable[Decision]]:
    """Wrap ``authenticate`` in a span."""
    tracer = trace.get_tracer("smarter_auth_mw")

    async def authenticate_in_span(*arguments: P.args, **options: P.kwargs) -> Decision:
        with tracer.start_as_current_span(SPAN) as span:
            decision = await authenticate(*arguments, **options)
            span.set_attributes(dict(_attributes(decision)))
            return decision

    return authenticate_in_span


def _attributes(decision: Decision) -> Iterator[tuple[str, str]]:
    yield "smarter_auth.decision", _name(decision)
    if isinstance(decision, Denial):
        yield "smarter_auth.reason", decision.reason.value
    if decision.resource is not None:
        yield "smarter_auth.resource.kind", decision.resource.kind
        if decision.account is not None:
            yield "smarter_auth.resource.ref", decision.resource.ref
            yield "smarter_auth.account", decision.account
    if decision.key_id is not None:
        yield "smarter_auth.key.id", decision.key_id


def _name(decision: Decision) -> str:
    if isinstance(decision, Denial):
        return "deny"
    return "grant" if isinstance(decision, Grant) else "anonymous"
