"""Resolves hosts: to a resource below a pattern's domain, or to the one that has a custom domain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Alias, Target
from smarter_auth_mw.routing import hosts
from smarter_auth_mw.routing.grammar import Pattern
from smarter_auth_mw.routing.hosts import TELLING, BadHostError, Headers
from smarter_auth_mw.routing.memo import UNKNOWN, Memo
from smarter_auth_mw.routing.precedence import Hit
from smarter_auth_mw.routing.references import label
from smarter_auth_mw.routing.resolution import NOTHING, Judgement, agree, refused, shown

MEMO_HEADERS_CHARS = 512

Claim = tuple[str, str]
"""A verified custom domain, and the kind of the resource that it belongs to."""


class HostRouting:
    """The compiled host patterns and custom domains; ``ignored`` lists domains that are not used, and why.

    ``own_domains`` are API_DOMAINS and PLATFORM_DOMAINS; ``heir`` is the kind that gets a domain if several kinds of
    the platform claim it.
    """

    def __init__(
        self,
        patterns: Sequence[Pattern],
        own_domains: Iterable[str],
        heir: str | None,
        default_account: str,
        claims: Iterable[Claim] = (),
    ) -> None:
        self._patterns = sorted(patterns, key=lambda pattern: [word is None for word in pattern.words])
        self._suffixes: dict[str, list[Pattern]] = {}
        for pattern in self._patterns:
            self._suffixes.setdefault(pattern.domain, []).append(pattern)
        self._own_domains = sorted({*own_domains, *self._suffixes}, key=len)
        self._heir = heir
        self._default_account = default_account
        self._kinds, self.ignored = self._claimed(claims)
        self._depth = max((domain.count(".") + 1 for domain in (*self._suffixes, *self._kinds)), default=0)
        self._memo: Memo[tuple[tuple[bytes, bytes], ...]] = Memo()
        self.is_needed = bool(self._patterns or self._kinds)

    def with_domains(self, claims: Iterable[Claim]) -> HostRouting:
        """Return the routing with other custom domains."""
        return HostRouting(self._patterns, self._own_domains, self._heir, self._default_account, claims)

    def resolve(self, headers: Headers) -> Target | Denial | None:
        """Return what the hosts of a request name."""
        naming = tuple([header for header in headers if header[0] in TELLING])
        found = self._memo.young.get(naming, UNKNOWN)
        return self._look_up(naming) if found is UNKNOWN else found

    def judge(self, headers: Headers) -> Judgement:
        """Return the target together with the line and the host that decided."""
        try:
            asked = hosts.asked_for(headers)
        except BadHostError as error:
            return refused(str(error), "Host")
        owners = {self._owner(host.lower()) for host in asked.hosts} | {None}
        for text in asked.texts:  # a router may be case-sensitive, and not expect lists or ports
            spellings = [
                part for one in (text, text.lower()) for part in (one, one.partition(":")[0], one.rpartition(":")[0])
            ]
            if any(self._owner(spelling.removesuffix(".")) not in owners for spelling in spellings):
                return refused("a lenient router would read it as another domain", text)
        agreed = NOTHING
        for host in asked.hosts:
            agreed = agree(agreed, self._judge(host.lower()))
        return agreed

    def _look_up(self, naming: tuple[tuple[bytes, bytes], ...]) -> Target | Denial | None:
        found: Target | Denial | None = self._memo.recall(naming)
        if found is UNKNOWN:
            found = self.judge(naming).result
            if not isinstance(found, Denial) and sum(len(value) for _, value in naming) <= MEMO_HEADERS_CHARS:
                self._memo.remember(naming, found)
        return found

    def _judge(self, host: str) -> Judgement:
        owner = self._owner(host)
        if owner is None:
            return NOTHING
        return self._by_domain(host, owner) if owner in self._kinds else self._by_pattern(host, owner)

    def _owner(self, host: str) -> str | None:
        """Return the longest domain that owns the host: a pattern's or a custom one."""
        labels = host.rsplit(".", self._depth)[-self._depth :]
        domains = (".".join(labels[at:]) for at in range(len(labels)))
        return next((domain for domain in domains if domain in self._suffixes or domain in self._kinds), None)

    def _by_pattern(self, host: str, owner: str) -> Judgement:
        if host == owner:
            return NOTHING
        labels = host.split(".")[::-1]
        pattern = next((one for one in self._suffixes[owner] if one.fits(labels)), None)
        if pattern is None:
            return refused(f"every host below {owner} belongs to a resource, and this one does not", host)
        account = None if pattern.account_at is None else labels[pattern.account_at]
        hit = Hit(pattern, host, labels[pattern.ref_at], account, rest_chars=0)
        return Judgement(hit.target(self._default_account), str(pattern), host)

    def _by_domain(self, host: str, owner: str) -> Judgement:
        kind = self._kinds[owner]
        if kind is None:
            return refused(f"resources of different kinds claim {owner}", host, Reason.AMBIGUOUS)
        if not all(map(label, host.split("."))):
            return refused(f"it is below {owner}, and one of its labels is invalid", host)
        return Judgement(Target(Alias(kind, "domain", owner)), f"{kind} by its domain {owner}", host)

    def _claimed(self, claims: Iterable[Claim]) -> tuple[dict[str, str | None], tuple[str, ...]]:
        """Return the kind of each domain (None: several claim it), and the mistakes in the others."""
        kinds: dict[str, str | None] = {}
        ignored: dict[str, None] = {}
        for written, kind in claims:
            domain = hosts.normal(written)
            if rule := self._objection(domain):
                ignored[f"{shown(written)} of a {kind} is ignored: {rule}"] = None
            elif kinds.setdefault(domain, kind) != kind:
                kinds[domain] = self._heir if self._heir in (kind, kinds[domain]) else None
        return kinds, tuple(ignored)

    def _objection(self, domain: str) -> str | None:
        clash = next((own for own in self._own_domains if hosts.overlap(domain, own)), None)
        return f"it overlaps {clash}" if clash else hosts.problem(domain)
