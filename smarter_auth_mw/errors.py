"""All errors, in one hierarchy: an error's docstring is its default message, and its data are attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: ``1 key``, ``2,000 keys``; ``many`` is ``one`` with an s unless it is given."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


class SmarterAuthError(Exception):
    """Something went wrong in smarter_auth_mw."""

    code: ClassVar[str] = "error"
    """A stable code for programs, in the command line's JSON."""
    exit_code: ClassVar[int] = 1
    """1 refused or not found, 2 wrong usage, 3 something could not be reached."""
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str | None = None, *, hint: str | None = None, **data: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.hint = self.default_hint if hint is None else hint
        for name, value in data.items():
            setattr(self, name, value)

    @property
    def message(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in the configuration: which variable, what it holds (secrets masked), and the rule it breaks.

    ``file`` is the one that contains it, if any.
    """

    variable: str
    value: str
    rule: str
    file: str = ""

    def __str__(self) -> str:
        held = f"={self.value!r}" if self.value else ""
        place = f" in {self.file}" if self.file else ""
        return f"{self.variable}{held}{place}: {self.rule}"


class ConfigurationError(SmarterAuthError):
    """The configuration has mistakes."""

    code = "configuration"
    exit_code = 2

    def __init__(self, mistakes: list[Mistake] | tuple[Mistake, ...], *, hint: str | None = None) -> None:
        self.mistakes = tuple(mistakes)
        count = "one mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        lines = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(f"The configuration has {count}:\n{lines}", hint=hint)


class UsageError(SmarterAuthError):
    """The command or call got an argument that it cannot accept."""

    code = "usage"
    exit_code = 2


class InvalidReferenceError(UsageError):
    """The reference is not written in its one canonical spelling."""

    code = "invalid_reference"


class UnknownKindError(UsageError):
    """No route names this kind of resource."""

    code = "unknown_kind"


class NotFoundError(SmarterAuthError):
    """The object does not exist."""

    code = "not_found"


class RefusedError(SmarterAuthError):
    """The change was refused, and nothing was changed."""

    code = "refused"


class OutOfScopeError(RefusedError):
    """This is allowed only to operators of all accounts."""

    code = "out_of_scope"


class WouldOpenError(RefusedError):
    """This would open a protected resource to anyone."""

    opened: Sequence[Any] = ()
    """The resources, if the error names them."""

    code = "would_open"


class ConflictError(RefusedError):
    """It already exists."""

    code = "conflict"


class ObjectDoesNotExist(NotFoundError):  # noqa: N818 - Django's names, here and below.
    """No object matches."""


class MultipleObjectsReturned(RefusedError):  # noqa: N818
    """More than one object matches."""

    code = "multiple"


class DatabaseError(SmarterAuthError):
    """The database did not carry out the statement."""

    code = "database"


class ObjectNotUpdated(NotFoundError, DatabaseError):  # noqa: N818
    """The object no longer exists, and nothing was written."""

    code = "not_updated"


class UnavailableError(SmarterAuthError):
    """A required service could not be reached."""

    code = "unavailable"
    exit_code = 3


class OverloadedError(UnavailableError):
    """Too many resources are being looked up at once."""

    code = "overloaded"


class NoEventLoopError(UnavailableError):
    """smarter_auth_mw needs an asyncio event loop, and this server runs none."""

    code = "no_event_loop"
    default_hint = "Start the server with asyncio or uvloop: hypercorn --worker-class asyncio."


class SchemaError(UnavailableError):
    """The database's schema is not the one that this release works on."""

    code = "schema"
    exit_code = 1
    default_hint = "Run: smarter-auth db migrate"
