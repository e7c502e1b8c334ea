"""Failed attempts at being an operator, counted for each peer network: the API's and the pages' together."""

from __future__ import annotations

from smarter_auth_mw.admin.problems import ThrottledError
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.authentication.throttle import window_s
from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Resource

SIGN_IN = Resource("operator", "sign-in")
"""What failed attempts are counted for: all of them together, since operators have one door."""


async def count_failure(services: Services, network: str) -> None:
    """Count an attempt with a token that is not valid; raises ThrottledError if there were too many."""
    if services.throttle is None:
        return
    denial = await services.throttle.judge(Denial(Reason.UNKNOWN_TOKEN, SIGN_IN), network)
    if denial.reason is Reason.THROTTLED:
        error = ThrottledError()
        error.headers = (("Retry-After", str(window_s(services.settings.failed_attempts))),)
        raise error
