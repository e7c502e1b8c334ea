"""The read side: decides a request from the target that its route names and its credentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from smarter_auth_mw.authentication.known_tokens import KnownTokens
from smarter_auth_mw.authentication.throttle import Throttle
from smarter_auth_mw.authentication.wall_clock import WallClock
from smarter_auth_mw.cache.entries import Cache, Entry
from smarter_auth_mw.decision import Anonymous, Decision, Denial, Grant, Holds, Reason, Require, decide, never
from smarter_auth_mw.domain import Alias, Bindings, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, OverloadedError, UnavailableError
from smarter_auth_mw.http.credentials import (
    API_KEY_HEADER,
    AUTHORIZATION_HEADER,
    Credentials,
    Extractor,
    Header,
    Headers,
    Malformed,
)
from smarter_auth_mw.log import log
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token, fingerprint_of, quick_hash

FOREVER = float("inf")
REPORT_EVERY_S = 10.0
"""An outage is reported at most this often: in overload, look-ups may fail and succeed in turn."""


class Authenticator:
    """Decides requests for resources, from the cache where it can."""

    def __init__(
        self,
        cache: Cache,
        require: Require = "bound",
        clock: Callable[[], float] | None = None,
        throttle: Throttle | None = None,
        known_tokens: KnownTokens | None = None,
    ) -> None:
        self._cache = cache
        self._at_hand, self._changes, self._steady_s, self._hit = cache.at_hand, cache.changes, cache.clock, cache.hit
        self._known_tokens = known_tokens
        self._require = require
        self.throttle = throttle
        """Counts refused tokens; None if failed attempts are not limited."""
        self._clock = clock or WallClock().now_s
        self._is_outage = self._is_stale_logged = False
        self._quiet_until_s = -FOREVER

    def warm(self, target: Target, headers: Headers, extractor: Extractor) -> Decision | None:
        """Return the decision if it can be made from memory, without waiting or I/O.

        A token that was granted is granted again as long as its entry serves: nearly every request is decided
        like this, in this one function. Less common requests take a longer path. All extractors that are passed accept
        the same schemes.
        """
        entry = self._at_hand.get(target.lookup)
        if entry is None or entry.checked != self._changes.heard or self._steady_s() >= entry.serves_until_s:
            entry = self._cache.peek(target)
            if entry is None:
                return None
        else:
            self._hit()
        readers, name, value = extractor.readers, b"", b""
        for header in headers:
            if header[0] in readers:
                if name:
                    return self._look_closer(entry, target, extractor(headers))
                name, value = header
        if name == AUTHORIZATION_HEADER:
            grants = entry.authorized
        elif name == API_KEY_HEADER:
            grants = entry.granted
        else:
            return self._look_closer(entry, target, extractor(headers)) if name else self._tokenless(entry, target)
        # Only the same bytes have the fingerprint of a header that was granted, and they are read in one way only.
        granted = grants.get(quick_hash(value).digest()) if len(value) <= MAX_TOKEN_BYTES else None
        if (
            granted is None
            or target.name_alone != entry.bindings.resource
            or (entry.bindings.may_expire and not granted.is_valid_at(self._clock()))
        ):
            return self._read(entry, target, (name, value), extractor)
        return granted

    def _read(self, entry: Entry, target: Target, header: Header, extractor: Extractor) -> Decision | None:
        """Return the decision for a request with one header of credentials; keep its fingerprint if it was granted."""
        name, value = header
        decision = self._look_closer(entry, target, extractor.readers[name](value))
        if isinstance(decision, Grant) and name == AUTHORIZATION_HEADER and extractor.is_usual(value):
            entry.keep_authorized(fingerprint_of(value), decision)
        return decision

    def holding(self, target: Target | Denial, decision: Decision | None) -> Holds:
        """Return what says whether ``warm`` would decide so again: call it at once after ``warm``.

        It would as long as its entry is cached and current: a decision depends only on the entry, the request and the
        time.
        Nothing is read or hashed. False means that ``warm`` has to decide again, not that the request is refused.
        """
        if isinstance(target, Denial) or decision is None or isinstance(decision, Denial):
            return never
        entry, lookup = self._at_hand.get(target.lookup), target.lookup
        if entry is None:
            return never
        ends_at_s = FOREVER
        if entry.bindings.may_expire:
            if not isinstance(decision, Grant) or decision.binding is None:
                return never
            ends_at_s = decision.binding.expires_at_s
        at_hand, changes, steady_s, clock = self._at_hand, self._changes, self._steady_s, self._clock

        def holds() -> bool:
            return (
                at_hand.get(lookup) is entry
                and entry.checked == changes.heard
                and steady_s() < entry.serves_until_s
                and (ends_at_s == FOREVER or clock() <= ends_at_s)
            )

        return holds

    def _tokenless(self, entry: Entry, target: Target) -> Decision | None:
        """Return the decision for a request without credentials, a kept or a new one."""
        if target.name_alone == entry.bindings.resource:
            said = entry.tokenless_always if target.always else entry.tokenless
            if said is not None:
                return said
        return self._look_closer(entry, target, None)

    def _look_closer(self, entry: Entry, target: Target, credentials: Credentials) -> Decision | None:
        if target.also is not None:
            return None
        decision = self._decide(entry, target, credentials)
        if self._known_tokens is not None and self._is_doubtful(decision, credentials):
            return None
        return decision

    async def authenticate(self, target: Target, credentials: Credentials, peer: str = "") -> Decision:
        """Return the decision; if the facts cannot be loaded it is "unavailable", never anonymous."""
        if self._cache.is_store_down and (granted := self._granted_stale(target, credentials)):
            self._cache.probe(target)
            return granted  # Do not wait for a store that hangs.
        try:
            entry = await self._entry(target, peer)
            if target.also is not None and await self._resource(target.also, peer) != entry.bindings.resource:
                return Denial(Reason.AMBIGUOUS, detail=f"{target.names} is not {target.also.names}")
        except InvalidReferenceError as error:
            return Denial(Reason.NOT_CANONICAL, detail=error.message)
        except OverloadedError as error:  # Not an outage: load is no reason to grant from old data.
            return Denial(Reason.UNAVAILABLE, _resource(target), detail=error.message)
        except UnavailableError as error:
            self._report(error)
            return self._granted_stale(target, credentials) or Denial(
                Reason.UNAVAILABLE, _resource(target), detail=error.message
            )
        if self._is_outage and not self._cache.is_store_down:
            self._is_outage = self._is_stale_logged = False
            log("store.recovered")
        decision = self._decide(entry, target, credentials)
        return await self._judged(decision, credentials, peer) if self._is_doubtful(decision, credentials) else decision

    async def _resource(self, target: Target, peer: str) -> Resource:
        return (
            target.names if isinstance(target.names, Resource) else (await self._entry(target, peer)).bindings.resource
        )

    async def _entry(self, target: Target, peer: str) -> Entry:
        return self._cache.peek(target) or await self._cache.get(target, peer)

    def _is_doubtful(self, decision: Decision | None, credentials: Credentials) -> bool:
        """Return whether an open resource got a token that may be bad, and bad tokens are to be rejected."""
        return self._known_tokens is not None and credentials is not None and isinstance(decision, Anonymous)

    async def _judged(self, opened: Decision, credentials: Credentials, peer: str) -> Decision:
        """Return the decision for an open resource, or a denial if no valid key has the token."""
        if self._known_tokens is None or not isinstance(credentials, Token) or credentials.is_mistyped:
            return Denial(Reason.UNKNOWN_TOKEN, opened.resource, detail="malformed", account=opened.account)
        try:
            bindings = await self._known_tokens.bindings_of(credentials, peer)
        except UnavailableError as error:
            return Denial(Reason.UNAVAILABLE, opened.resource, detail=error.message, account=opened.account)
        judged = decide(bindings, credentials, self._clock(), always=True)
        if not isinstance(judged, Denial):
            return opened
        return replace(judged, resource=opened.resource, detail="", account=opened.account)

    def _granted_stale(self, target: Target, credentials: Credentials) -> Grant | None:
        """Return a grant from an entry past its age limit: an outage extends grants, and nothing else."""
        entry = self._cache.stale(target) if target.also is None else None
        decision = None if entry is None else self._decide(entry, target, credentials)
        if not isinstance(decision, Grant):
            return None
        self._cache.counts.stale += 1
        if not self._is_stale_logged:  # Once for each outage.
            self._is_stale_logged = True
            log(
                "store.stale",
                "%s is granted from data cached before the outage; other resources may be too",
                decision.resource,
            )
        return decision

    def _report(self, error: UnavailableError) -> None:
        """Report the error, once for each outage; if outages follow each other quickly, the next one that lasts."""
        if not self._is_outage and self._steady_s() >= self._quiet_until_s:
            self._is_outage, self._quiet_until_s = True, self._steady_s() + REPORT_EVERY_S
            log("store.unavailable", "%s %s", error, error.hint)

    def _decide(self, entry: Entry, target: Target, credentials: Credentials) -> Decision:
        bindings = entry.bindings
        is_plain = target.account is None and target.names == bindings.resource
        if not is_plain and (denial := _objection(bindings, target)):
            return denial
        token = None if isinstance(credentials, Malformed) else credentials
        if isinstance(target.names, Resource) and target.names.ref != bindings.resource.ref:
            # The app compares exactly, so this is another resource, and an unknown one.
            decision = decide(Bindings(target.names), token, 0.0, always=target.always, require=self._require)
        else:
            decision = self._decide_again(entry, token, always=target.always)
        if isinstance(credentials, Malformed) and isinstance(decision, Denial):
            return replace(decision, reason=Reason.MALFORMED_CREDENTIALS, detail=credentials.detail)
        return decision

    def _decide_again(self, entry: Entry, token: Token | None, *, always: bool) -> Decision:
        """Return the decision for the entry's bindings, a kept or a new one."""
        bindings = entry.bindings
        now_s = self._clock() if bindings.may_expire else 0.0
        if token is not None and (granted := entry.granted_before(token.fingerprint, now_s)):
            return granted
        said = entry.tokenless_always if always else entry.tokenless
        if said is not None and (token is None or isinstance(said, Anonymous)):
            return said
        decision = decide(bindings, token, now_s, always=always, require=self._require)
        if isinstance(decision, Grant):
            if token is not None:
                entry.keep_granted(token.fingerprint, decision)
        elif token is None or isinstance(decision, Anonymous):
            entry.keep_tokenless(decision, always=always)
        return decision


def _objection(bindings: Bindings, target: Target) -> Denial | None:
    """Return a denial if the bindings that were found are not those of the target."""
    if isinstance(target.names, Alias) and not bindings.resource.ref:
        if bindings.account is None:
            return Denial(Reason.NOT_FOUND, detail=f"{target.names} does not resolve to a resource")
        return Denial(Reason.AMBIGUOUS, detail=f"{target.names} resolves to several resources")
    if bindings.account is None:
        return None
    if isinstance(target.names, Resource) and bindings.resource.ref != target.names.ref:
        detail = f"registered as {bindings.resource}"
        denial = Denial(Reason.NOT_CANONICAL, bindings.resource, detail=detail, account=bindings.account)
        return None if target.exact else denial
    if target.account is not None and target.account != bindings.account:
        detail = f"not in account {target.account}"
        return Denial(Reason.NOT_FOUND, bindings.resource, detail=detail, account=bindings.account)
    return None


def _resource(target: Target) -> Resource | None:
    return target.names if isinstance(target.names, Resource) else None
