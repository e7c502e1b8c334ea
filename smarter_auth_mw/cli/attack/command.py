"""`smarter-auth attack`: send all known hostile requests to your own deployment."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import groupby
from typing import Annotated, Any

import typer

from smarter_auth_mw.cli import arguments
from smarter_auth_mw.cli.attack.cases import NOWHERE, UNKNOWN, Case, ResourceUrl, cases, nearly, ordinary
from smarter_auth_mw.cli.attack.client import NOT_TRIED, Marker, RawResponse, Report, Result, ask, attack
from smarter_auth_mw.cli.output import note
from smarter_auth_mw.cli.session import Session
from smarter_auth_mw.config.settings import WAYS
from smarter_auth_mw.errors import RefusedError, UnavailableError, UsageError, counted
from smarter_auth_mw.http.credentials import Extractor
from smarter_auth_mw.tokens import Token

REFUSED = frozenset({401, 403, 429})
SHOWN_CHARS = 300

Url = Annotated[str, typer.Argument(metavar="URL", help="The URL of a protected resource.")]
IOwnThis = Annotated[
    bool, typer.Option("--i-own-this", help="Confirm that a host other than this machine is yours to test.")
]
MarkerOption = Annotated[
    str | None,
    typer.Option(
        "--marker",
        metavar="HEADER:VALUE",
        help="A response header that only the resource sends; by default any 2xx or 500 counts.",
    ),
]
Body = Annotated[
    str | None, typer.Option("--body", metavar="PATTERN", help="Text that only the resource's responses contain.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="Valid credentials, to try similar ones."),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Seconds to wait for a response, for example 5.", min=0.1)
]


async def run(
    session: Session,
    url: Url,
    i_own_this: IOwnThis = False,  # noqa: FBT002 (an option)
    marker: MarkerOption = None,
    body: Body = None,
    header: Headers = None,
    timeout: Timeout = 5.0,  # noqa: ASYNC109 (an option)
) -> dict[str, Any]:
    """Send hundreds of hostile requests to a protected resource; exit code 0 only if none got through.

    Example: smarter-auth attack http://localhost:8000/bots/1
    """
    target = _Target(_site(url, is_owned=i_own_this), _marker(marker, body), timeout)
    await target.must_refuse()
    target = replace(target, marker=await target.marker_here())
    tokens = {**UNKNOWN, **await target.close_to(header)} if header else UNKNOWN
    report = Report()
    for group, members in groupby(cases(target.site, tokens), key=lambda case: case.group):
        report.results += (await target.attack(group, list(members))).results
    await target.must_refuse()
    session.exit_code = 1 if report.reached else 0
    return _document(url, report, list(tokens.values()))


@dataclass(frozen=True, slots=True)
class _Target:
    """A resource under attack, and how to see that it was reached."""

    site: ResourceUrl
    marker: Marker
    timeout_s: float

    async def answer(self, request: bytes) -> RawResponse:
        """Return its response to one request; raises UnavailableError."""
        try:
            answers = await ask(self.site, request, self.timeout_s)
        except (OSError, TimeoutError) as error:
            raise UnavailableError(f"{self.site.authority} cannot be reached: {error or 'no answer'}.") from None
        if not answers:
            raise UnavailableError(f"{self.site.authority} does not answer an ordinary request.")
        return answers[0]

    async def must_refuse(self) -> None:
        """Raise RefusedError unless the resource requires a token: otherwise the attack would prove nothing."""
        status = (await self.answer(ordinary(self.site))).status
        if status not in REFUSED:
            raise RefusedError(
                f"Without credentials it answers {status}, but a protected resource answers 401.",
                hint="Name a resource that is protected: smarter-auth resource protect KIND:REF",
            )

    async def marker_here(self) -> Marker:
        """Return the marker, which knows how the app answers unknown paths."""
        bodies = [(await self.answer(ordinary(self.site, target=path))).body for path in ("/", NOWHERE)]
        return replace(self.marker, elsewhere=frozenset(filter(None, bodies)))

    async def close_to(self, header: list[str]) -> dict[str, str]:
        """Return credentials similar to these, after checking that these are accepted."""
        token = Extractor(WAYS)(arguments.headers(header))
        if not isinstance(token, Token):
            raise UsageError(
                "None of the headers contains a token.", hint="For example: --header 'Authorization: Token …'"
            )
        if not self.marker.shows(await self.answer(ordinary(self.site, *header))):
            raise RefusedError("These credentials are refused, or the marker does not match the resource.")
        return nearly(token.reveal())

    async def attack(self, group: str, members: list[Case]) -> Report:
        """Send the cases of one group."""
        note(f"{group}: {counted(len(members), 'request')}")
        try:
            return await attack(self.site, members, self.marker, self.timeout_s)
        except (OSError, TimeoutError) as error:
            raise UnavailableError(
                f"{self.site.authority} no longer accepts connections: {error or 'no answer'}.",
                hint=f"One of the requests about {group} may have ended the server.",
            ) from None


def _site(url: str, *, is_owned: bool) -> ResourceUrl:
    try:
        site = ResourceUrl.parse(url)
    except ValueError as error:
        raise UsageError(
            f"{url!r} cannot be attacked: {error}.", hint="For example: http://localhost:8000/bots/1"
        ) from None
    if not is_owned and not _is_here(site.host):
        raise UsageError(f"{site.host} is not this machine.", hint="If you may attack it, add --i-own-this")
    return site


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _marker(header: str | None, body: str | None) -> Marker:
    name, colon, value = (header or "").partition(":")
    if header and not (name.strip() and colon and value.strip()):
        raise UsageError(f"{header!r} is not a marker.", hint="Write HEADER:VALUE, for example: --marker X-Bot:1")
    try:
        pattern = re.compile(body.encode()) if body else None
    except re.error as error:
        raise UsageError(f"{body!r} is not a regular expression: {error}.") from None
    return Marker((name.strip(), value.strip()) if header else None, pattern)


def _document(url: str, report: Report, tokens: list[str]) -> dict[str, Any]:
    return {
        "url": url,
        "requests": len(report.results),
        "outcomes": [{"answers": outcome, "requests": count} for outcome, count in report.outcomes.items()],
        "reached": [_reached(result, tokens) for result in report.reached],
        "not_tried": list(NOT_TRIED),
    }


def _reached(result: Result, tokens: list[str]) -> dict[str, str]:
    request = result.case.request.decode("latin-1")
    for token in tokens:
        request = request.replace(token, f"{token[:4]}…")
    return {"case": str(result.case), "answers": result.outcome, "request": request[:SHOWN_CHARS]}
