"""Failed attempts to authenticate as an operator, counted per peer network, for API and pages together."""

from __future__ import annotations

from smarter_auth_mw.admin.problems import ThrottledError
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.authentication.throttle import window_s
from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Resource

SIGN_IN = Resource("operator", "sign-in")
"""The name under which all failed attempts of operators are counted together."""


async def count_failure(services: Services, network: str) -> None:
    """Count an attempt with a token that is not valid; raises ThrottledError if there were too many."""
    if services.throttle is None:
        return
    denial = await services.throttle.judge(Denial(Reason.UNKNOWN_TOKEN, SIGN_IN), network)
    if denial.reason is Reason.THROTTLED:
        error = ThrottledError()
        error.headers = (("Retry-After", str(window_s(services.settings.failed_attempts))),)
        raise error
