"""Signals (blinker) of decisions, under the platform's names, for code in the app itself.

A receiver is a plain function: ``authentication_failure.connect(receiver)``. It is called with the wrapped app as its
sender and with keywords. Every signal has ``token`` (masked; empty if there was none), ``resource`` (``Resource`` or
None) and ``url`` (only the path, since a query may hold secrets).

=============================  ===========================================================================
``authentication_request``     every request that names a resource, just before the other two
``authentication_success``     it was granted; ``user`` is the principal, ``key_id`` its key
``authentication_failure``     it was denied; ``user`` is Starlette's ``UnauthenticatedUser``, ``reason`` a ``Reason``
=============================  ===========================================================================

They are sent after the decision, and receivers cannot change it; a receiver that raises is counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakSet

from blinker import Signal
from starlette.authentication import UnauthenticatedUser

from smarter_auth_mw.decision import Anonymous, Decision, Denial
from smarter_auth_mw.http.credentials import Credentials
from smarter_auth_mw.tokens import Token, hidden

authentication_request = Signal("A request names a resource.")
authentication_success = Signal("A token opened a resource.")
authentication_failure = Signal("A request was denied.")
SIGNALS = (authentication_request, authentication_success, authentication_failure)


class Announcer:
    """Sends the signals of one middleware, as soon as there is a receiver; until then it is not called.

    ``add`` then makes it an observer; ``failed`` is called for each receiver that raises, and the other receivers are
    still called.
    """

    def __init__(
        self,
        sender: Any,
        credentials_of: Callable[[Mapping[str, Any]], Credentials],
        failed: Callable[[Exception], None],
        add: Callable[[Callable[[Decision, Mapping[str, Any]], None]], None],
    ) -> None:
        self._sender = sender
        self._credentials_of = credentials_of
        self._failed = failed
        self._add = add
        _silent.add(self)
        if any(signal.receivers for signal in SIGNALS):
            _begin()

    def start(self) -> None:
        """Observe from now on."""
        self._add(self.observe)

    def observe(self, decision: Decision, scope: Mapping[str, Any]) -> None:
        """Send the signals of a decision."""
        if not any(signal.receivers for signal in SIGNALS):
            return
        credentials = self._credentials_of(scope)
        arguments: dict[str, Any] = {
            "token": credentials.masked if isinstance(credentials, Token) else "",
            "resource": decision.resource,
            "url": hidden(scope["path"]),
        }
        self._send(authentication_request, arguments)
        if isinstance(decision, Denial):
            self._send(authentication_failure, {**arguments, "user": UnauthenticatedUser(), "reason": decision.reason})
        elif not isinstance(decision, Anonymous):
            self._send(authentication_success, {**arguments, "user": decision.principal, "key_id": decision.key_id})

    def _send(self, signal: Signal, arguments: Mapping[str, Any]) -> None:
        for receiver in list(signal.receivers_for(self._sender)):
            try:
                answer = receiver(self._sender, **arguments)
                if inspect.iscoroutine(answer):
                    answer.close()
                    raise TypeError("A receiver must be a plain function: it is not awaited.")
            except Exception as error:
                self._failed(error)


def _begin(*_: Any, **__: Any) -> None:
    for announcer in list(_silent):
        _silent.discard(announcer)
        announcer.start()


_silent: WeakSet[Announcer] = WeakSet()

for _signal in SIGNALS:
    _signal.receiver_connected.connect(_begin)
