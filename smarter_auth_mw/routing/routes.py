"""Resolves a request's scope to the resource that it names, or to a refusal if it can be read in two ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.errors import ConfigurationError, InvalidReferenceError, Mistake
from smarter_auth_mw.routing import grammar as patterns
from smarter_auth_mw.routing import hosts, presets
from smarter_auth_mw.routing import mounts as mounting
from smarter_auth_mw.routing.app_routes import AppRoute, routes_of
from smarter_auth_mw.routing.by_host import Claim, HostRouting
from smarter_auth_mw.routing.by_path import PathRouting, Request
from smarter_auth_mw.routing.further_back import FurtherBack
from smarter_auth_mw.routing.grammar import Line, Pattern
from smarter_auth_mw.routing.memo import UNKNOWN, Memo
from smarter_auth_mw.routing.precedence import ALIAS_FORMS
from smarter_auth_mw.routing.references import ACCOUNT, FORMS
from smarter_auth_mw.routing.resolution import NOTHING, Judgement, agree

MEMO_PATH_CHARS = 512

Scope = Mapping[str, Any]
Answer = Target | Denial | None


class Routes:
    """The compiled ROUTES, which resolve scopes."""

    def __init__(
        self,
        lines: Sequence[Line],
        *,
        mounts: Sequence[str] = (),
        own_domains: Iterable[str] = (),
        heir: str | None = None,
        default_account: str = "default",
    ) -> None:
        self.lines = tuple(lines)
        self.patterns = tuple(line for line in lines if isinstance(line, Pattern))
        self.kinds = tuple(dict.fromkeys(pattern.kind for pattern in self.patterns))
        by_host = [pattern for pattern in self.patterns if pattern.is_host]
        by_path = [line for line in lines if line not in by_host]
        self.default_account = default_account
        self._paths = PathRouting(by_path, mounts, default_account)
        self._hosts = HostRouting(by_host, own_domains, heir, default_account)
        self.memo: Memo[tuple[str, bytes | None, str]] = Memo()
        """Results for paths, by path, raw path and root path. With host patterns, only a part of the answer."""

    @classmethod
    def parse(
        cls,
        lines: Iterable[str],
        *,
        mounts: Iterable[str] = (),
        api_domains: Iterable[str] = (),
        platform_domains: Iterable[str] = (),
        default_account: str = "default",
    ) -> Routes:
        """Compile the lines of ROUTES; raises ConfigurationError with all mistakes."""
        lines, mounts = tuple(lines), tuple(mounts)
        apis, platforms = (tuple(map(hosts.normal, domains)) for domains in (api_domains, platform_domains))
        used = [one.removeprefix("preset:") for one in patterns.split(lines) if one.startswith("preset:")]
        sound = [domain for domain in dict.fromkeys(apis) if not hosts.problem(domain)]
        parsed, mistakes = patterns.parse(lines, lambda preset: presets.lines(preset, used, sound))
        mistakes += [*mounting.check(mounts), *hosts.check(apis, platforms), *_check_account(default_account)]
        if mistakes:
            raise ConfigurationError(mistakes)
        heir, own_domains = presets.owner_of_hosts(used), (*apis, *platforms)
        return cls(parsed, mounts=mounts, own_domains=own_domains, heir=heir, default_account=default_account)

    @property
    def reads_hosts(self) -> bool:
        """Return whether the host of a request may name a resource."""
        return self._hosts.is_needed

    def resolve(self, scope: Scope) -> Answer:
        """Return what a request names: None if it is not a resource, a denial if it can be read in two ways.

        If hosts are read, headers with a forwarded host count, so those of untrusted peers must be removed before
        (``hosts.without_forwarded``).
        """
        try:
            found = self.memo.young.get((scope["path"], scope["raw_path"], scope["root_path"]), UNKNOWN)
        except KeyError:  # Two of them are optional.
            found = UNKNOWN
        if found is UNKNOWN:
            found = self._look_up(scope)
        return self._with_host(scope, found) if self._hosts.is_needed else found

    def canonical(self, kind: str, ref: str) -> Resource:
        """Return the resource in the spelling that requests use; raises InvalidReferenceError.

        A kind that is reached only by name also has references, which bindings use.
        """
        own = [one.form for one in self.patterns if one.kind == kind and one.form.placeholder not in ALIAS_FORMS]
        forms = list(dict.fromkeys(own)) or [FORMS["ref"]]
        canonical = next((value for form in forms if (value := form.parse(ref)) is not None), None)
        if canonical is None:
            rules = ", or ".join(form.rule for form in forms)
            raise InvalidReferenceError(f"{ref!r} is not a reference of a {kind}, which is {rules}.")
        return Resource(kind, canonical)

    def explain(self, scope: Scope) -> Judgement:
        """Return the target with the line and the reading that decided; without headers the path alone decides."""
        by_path = self._judge(scope, Request.of(scope))
        if not self._hosts.is_needed or "headers" not in scope:
            return by_path
        return agree(self._hosts.judge(scope["headers"]), by_path)

    def further_back(self, path: str) -> FurtherBack | None:
        """Return what a path names after a later slash, if it is refused for that; its ``remedies`` resolve it."""
        return self._paths.further_back(path)

    def replace_domains(self, claims: Iterable[Claim]) -> tuple[str, ...]:
        """Replace the custom domains by these verified ones, each with its kind.

        Returns the ignored domains, each with the reason, to be logged.
        """
        self._hosts = self._hosts.with_domains(claims)
        return self._hosts.ignored

    def _look_up(self, scope: Scope) -> Answer:
        request = Request.of(scope)
        found: Answer = self.memo.recall(request)
        if found is UNKNOWN:
            found = self._judge(scope, request).result
            # Refusals are not cached here, and decisions never are.
            if not isinstance(found, Denial) and len(request.path) <= MEMO_PATH_CHARS and request.path[:1] == "/":
                self.memo.remember(request, found)
        return found

    def _with_host(self, scope: Scope, by_path: Answer) -> Answer:
        by_host = self._hosts.resolve(scope["headers"])
        if by_host is None or isinstance(by_path, Denial):
            return by_path
        return by_host if by_path is None else self.explain(scope).result

    def _judge(self, scope: Scope, request: Request) -> Judgement:
        if request.path == "*" and scope.get("method") == "OPTIONS":
            return NOTHING
        return self._paths.judge(request)


def refused_routes(app: Any, routes: Routes) -> list[AppRoute]:
    """Return the app's own routes that are refused because a later part of their path matches a pattern."""
    try:
        return [one for one in routes_of(app) if any(map(routes.further_back, one.samples()))]
    except Exception:  # a user's app may raise anything during the inspection
        return []


def _check_account(account: str) -> list[Mistake]:
    rule = f"an account is {ACCOUNT.rule}"
    return [] if ACCOUNT.parse(account) else [Mistake("SMARTER_AUTH_DEFAULT_ACCOUNT", account, rule)]
