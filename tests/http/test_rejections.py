"""What a refused request receives: the same bytes for every refused token, and a challenge for each accepted way."""

from __future__ import annotations

import json

import pytest

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.http.rejections import Rejections


def test_every_refused_token_gets_the_same_bytes() -> None:
    rejections = Rejections(["token"], "smarter", "problem")
    about_tokens = [reason for reason in Reason if reason.status == 401]
    assert len(about_tokens) == 7
    assert len({id(rejections[Denial(reason)]) for reason in about_tokens}) == 1


def test_the_challenge_names_each_accepted_way() -> None:
    rejection = Rejections(["token", "bearer", "x-api-key"], "my bots", "problem")[Denial(Reason.MISSING_CREDENTIALS)]
    assert [value for name, value in rejection.headers if name == b"www-authenticate"] == [
        b'Token realm="my bots"',
        b'Bearer realm="my bots"',
        b'ApiKey realm="my bots", header="X-API-Key"',
    ]


@pytest.mark.parametrize("reason", Reason)
def test_a_rejection_is_a_problem_document_that_nobody_stores(reason: Reason) -> None:
    rejection = Rejections(["token"], "smarter", "problem")[Denial(reason)]
    headers = dict(rejection.headers)
    document = json.loads(rejection.body)
    assert rejection.status == document["status"] == reason.status
    assert set(document) == {"type", "title", "status", "detail"}
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    assert int(headers[b"content-length"]) == len(rejection.body)
    assert (b"retry-after" in headers) == (rejection.status in {429, 503})
    assert (b"www-authenticate" in headers) == (rejection.status == 401)


def test_the_platforms_shape_is_kept_without_its_stack_trace() -> None:
    rejection = Rejections(["token"], "smarter", "smarter")[Denial(Reason.REVOKED)]
    document = json.loads(rejection.body)
    assert document["api"] == "smarter.sh/v1"
    assert document["error"]["errorClass"] == "SmarterTokenAuthenticationError"
    assert document["error"]["status"] == 401
    assert "stacktrace" not in document["error"]
    assert document["metadata"] == {"command": "None", "thing": "None"}
