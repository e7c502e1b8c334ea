"""From a request's scope to the resource it names, or to a refusal where it can be read two ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smarter_auth_mw import mounts as mounting
from smarter_auth_mw import patterns
from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Target
from smarter_auth_mw.errors import ConfigurationError, Mistake
from smarter_auth_mw.mounts import mounts_of
from smarter_auth_mw.path_routing import NOTHING, Judgement, PathRouting, Request
from smarter_auth_mw.patterns import Line, Pattern
from smarter_auth_mw.references import ACCOUNT

__all__ = ["Routes", "mounts_of"]

MEMO_ENTRIES = 8192
MEMO_PATH_CHARS = 512

Scope = Mapping[str, Any]
Answer = Target | Denial | None
UNKNOWN: Any = object()


class Memo:
    """What plain paths named, in two generations: a flood of new paths costs no search for what to forget.

    When the young generation is full it becomes the old one, and what was the old one is forgotten; whatever is asked
    for once in a generation lives on.
    """

    def __init__(self, entries: int = MEMO_ENTRIES) -> None:
        self._entries = entries // 2
        self.young: dict[Request, Answer] = {}
        self._old: dict[Request, Answer] = {}

    def recall(self, request: Request) -> Any:
        """What the old generation remembers, or ``UNKNOWN``."""
        found: Any = self._old.get(request, UNKNOWN)
        if found is not UNKNOWN:
            self.remember(request, found)
        return found

    def remember(self, request: Request, answer: Answer) -> None:
        if len(request.path) > MEMO_PATH_CHARS or not request.path.startswith("/"):
            return
        if len(self.young) >= self._entries:
            self._old, self.young = self.young, {}
        self.young[request] = answer


class Routes:
    """The compiled ROUTES: what a scope names, and how the command line spells a resource."""

    def __init__(self, lines: Sequence[Line], *, mounts: Sequence[str] = (), default_account: str = "default") -> None:
        self.lines = tuple(lines)
        self.patterns = tuple(line for line in lines if isinstance(line, Pattern))
        self.kinds = tuple(dict.fromkeys(pattern.kind for pattern in self.patterns))
        self._paths = PathRouting([line for line in lines if not _is_host(line)], mounts, default_account)
        self._memo = Memo()

    @classmethod
    def parse(cls, lines: Iterable[str], *, mounts: Iterable[str] = (), default_account: str = "default") -> Routes:
        """Compile the lines of ROUTES; raises ConfigurationError with all mistakes."""
        mounts = tuple(mounts)
        parsed, mistakes = patterns.parse(tuple(lines), lambda _: None)
        mistakes += mounting.check(mounts)
        if ACCOUNT.parse(default_account) is None:
            mistakes.append(Mistake("SMARTER_AUTH_DEFAULT_ACCOUNT", default_account, f"an account is {ACCOUNT.rule}"))
        if mistakes:
            raise ConfigurationError(mistakes)
        return cls(parsed, mounts=mounts, default_account=default_account)

    def resolve(self, scope: Scope) -> Answer:
        """What a request names: None where it is no resource, a denial where it could be read two ways."""
        request = Request(scope["path"], scope.get("raw_path"), scope.get("root_path", ""))
        found = self._memo.young.get(request, UNKNOWN)
        return self._look_up(scope, request) if found is UNKNOWN else found

    def explain(self, scope: Scope) -> Judgement:
        """The same with the line and the reading that decided, for operators."""
        return self._judge(scope, Request(scope["path"], scope.get("raw_path"), scope.get("root_path", "")))

    def _look_up(self, scope: Scope, request: Request) -> Answer:
        found: Answer = self._memo.recall(request)
        if found is UNKNOWN:
            found = self._judge(scope, request).result
            # A refusal is not worth a place here, and a decision is never kept.
            if not isinstance(found, Denial):
                self._memo.remember(request, found)
        return found

    def _judge(self, scope: Scope, request: Request) -> Judgement:
        if request.path == "*" and scope.get("method") == "OPTIONS":
            return NOTHING
        return self._paths.judge(request)


def _is_host(line: Line) -> bool:
    return isinstance(line, Pattern) and line.is_host
