"""The pages as a server: what is refused before anybody is recognised, and what every answer carries."""

from __future__ import annotations

import httpx
import pytest

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.pages.table import PAGES
from smarter_auth_mw.domain import Resource
from tests.support.admin import settings
from tests.support.asgi import lifespan
from tests.support.database import Database
from tests.support.pages import FORM, ORIGIN, Outline, Pages, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

ACTS = sorted(["/sign-in", *(page.path for page in PAGES if page.act is not None)])
FOREIGN = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://evil.example.com"},
    {"Origin": "https://evil.example.com", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:8010.evil.example.com"},
    {"Origin": f"{ORIGIN}/"},
    {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"},
    {"Origin": ORIGIN, "Sec-Fetch-Site": "same-site"},
    {"Origin": ORIGIN, "Sec-Fetch-Site": "none"},
    {"Origin": f"{ORIGIN}, {ORIGIN}"},
]


def _filled(path: str) -> str:
    return path.format(key_id="00000000-0000-0000-0000-000000000000", kind="bot", ref="1")


@pytest.mark.parametrize("path", ACTS)
async def test_forms_from_elsewhere_are_refused_before_anything_else(pages: Pages, path: str) -> None:
    person = await pages.person()
    for headers in FOREIGN:
        answer = await person.client.post(_filled(path), content="", headers={"Content-Type": FORM} | headers)
        assert answer.status_code == 403, headers
        assert "does not come from this site" in answer.text
    twice = httpx.Headers([("Origin", ORIGIN), ("Origin", ORIGIN), ("Content-Type", FORM)])
    assert (await person.client.post(_filled(path), content="", headers=twice)).status_code == 403


async def test_behind_a_proxy_the_refusal_says_what_to_set(pages: Pages) -> None:
    person = Person(pages.app)
    answer = await person.post("/sign-in", {"token": "x"}, {"Origin": "https://admin.example.com"})
    assert answer.status_code == 403
    assert "SMARTER_AUTH_ADMIN_ORIGIN" in answer.text
    app = AdminApp(settings(pages.database, admin_origin="https://admin.example.com"))
    async with lifespan(app):
        person = Person(app, "http://inner:9000", client=("10.0.0.1", 1))
        assert (await person.post("/sign-in", headers={"Origin": "http://inner:9000"})).status_code == 403
        assert (await person.post("/sign-in", headers={"Origin": "https://admin.example.com"})).status_code == 401


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data; boundary=x", b"", 415),
        ("text/plain", b"token=x", 415),
        ("", b"", 415),
        (FORM, b"token=" + b"x" * 65_536, 413),
        (FORM, b"&".join([b"a=b"] * 1_001), 422),
        (FORM, b"token=%ff", 422),
        (FORM, "token=ä".encode(), 422),
        (f"{FORM}; charset=utf-8", b"token=x", 401),
    ],
)
async def test_only_forms_as_browsers_send_them_are_read(
    pages: Pages, content_type: str, body: bytes, status: int
) -> None:
    person = Person(pages.app)
    headers = {"Origin": ORIGIN, "Content-Type": content_type}
    assert (await person.client.post("/sign-in", content=body, headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/keys/", "/no-page", "/sign-in/", "//", "/static/site.css", "/static/../site.py"])
async def test_other_paths_and_trailing_slashes_are_not_found(pages: Pages, path: str) -> None:
    answer = await pages.app_answer(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


async def test_other_methods_are_refused(pages: Pages) -> None:
    person = await pages.person()
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await person.client.request(method, "/keys")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_static_files_are_kept_for_good_and_everything_else_is_not(pages: Pages) -> None:
    person = Person(pages.app)
    page = await person.get("/sign-in")
    outline = Outline(page.text)
    linked = [values["href"] for values in outline.all("link")] + [values["src"] for values in outline.all("script")]
    assert len(linked) == 3
    for path in linked:
        file = await person.get(path)
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert file.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript", "image/svg+xml")
    assert page.headers["cache-control"] == "no-store"


async def test_a_full_list_weighs_less_than_60_kb_with_style_and_script(pages: Pages) -> None:
    person = await pages.person()
    for number in range(50):
        resources = [Resource("bot", str(900_000 + number)), Resource("bot", str(910_000 + number))]
        await pages.keys.create(f"a service with a long name, {number}", account="an-account", bind=resources)
    page = await person.get("/keys?find=a+service")
    outline = Outline(page.text)
    assert page.text.count("<tr>") == 51
    paths = [values["href"] for values in outline.all("link")] + [values["src"] for values in outline.all("script")]
    files = [(await person.get(path.removeprefix("."))).content for path in paths]
    assert len(page.content) + sum(map(len, files)) < 60_000
    script = next(file for path, file in zip(paths, files, strict=True) if path.endswith(".js"))
    assert len(script.splitlines()) <= 150


async def test_pages_hold_nothing_that_the_policy_forbids(pages: Pages) -> None:
    """No inline script or style, and nothing from another origin."""
    person = await pages.person()
    for path in ("/", "/keys", "/keys/new", "/resources", "/check", "/account"):
        outline = Outline((await person.get(path)).text)
        assert not [name for _, values in outline.tags for name in values if name.startswith("on") or name == "style"]
        assert "style" not in {tag for tag, _ in outline.tags}
        assert all("src" in values for values in outline.all("script"))
        linked = [value for _, values in outline.tags for name, value in values.items() if name in ("href", "src")]
        assert not [value for value in linked if value.startswith(("http", "//", "/", "data:"))]


async def test_foreign_host_is_refused_as_a_page(pages: Pages) -> None:
    person = Person(pages.app, "http://evil.example.com")
    answer = await person.get("/keys")
    assert (answer.status_code, answer.headers["content-type"]) == (421, "text/html; charset=utf-8")


async def test_without_a_database_every_page_is_one_503() -> None:
    app = AdminApp(settings(_nowhere()))
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as client:
        answers = [await client.get(path) for path in ("/", "/keys", "/account", "/sign-in")]
        answers.append(await client.post("/sign-in", headers={"Origin": ORIGIN, "Content-Type": FORM}))
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "2")}
        assert len({answer.text for answer in answers}) == 1
        assert "127.0.0.1" not in answers[0].text


def _nowhere() -> Database:
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    return Database(url, url, url)
