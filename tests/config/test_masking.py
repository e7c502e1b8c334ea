"""No message shows a secret: not in part, not cut, not from a place where something else is expected."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import smarter_auth_mw
from smarter_auth_mw.cli.commands.config import shown
from smarter_auth_mw.config.masking import mask_url, shown_value
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.engine.requirements import mistakes_of
from smarter_auth_mw.errors import ConfigurationError

PIECE = 6
"""A piece of a secret as long as this one is a leak."""
# No lower-case letters, of which messages are made.
SECRETS = st.text(string.ascii_uppercase + string.digits + string.punctuation + " äß漢", min_size=PIECE, max_size=40)
PACKAGE = Path(smarter_auth_mw.__path__[0])
OWN_WORDS = "".join(
    path.read_text("utf-8") for room in ("config", "cache", "routing") for path in PACKAGE.glob(f"{room}/*.py")
)
"""What messages may say; Hypothesis also generates secrets from the constants of the source, such as PASSWORD."""
DATABASE_URLS = [
    "{s}",
    "postgresql://me:{s}@db/bots",
    "postgres://me:{s}@db:5432,other:5433/bots?sslmode=require",
    "postgresql://:{s}@db/bots",
    "postgresql://me:p[{s}]w@db/bots",
    "postgresql://db/bots?password={s}",
    "postgresql://db/bots?user=me&password={s}&sslmode=require",
    "postgresql://db/bots?sslpassword={s}",
    "postgresql://me:{s}@[::1]:5432/bots",
    "postgresql://me:{s}@[::1/bots",
    "postgresql://me:{s}@h..x/bots",
    "postgresql://me:{s}@db:543210/bots",
    "postgresql+asyncpg://me:{s}@db/bots",
    "jdbc:postgresql://db:5432/bots?user=me&password={s}",
    "mysql://me:{s}@db/bots",
    "host=db user=me password={s} dbname=bots",
    "Server=db.postgres.database.azure.com;User Id=me;Password={s};Ssl Mode=Require;",
    "me:{s}@db/bots",
    "://me:{s}@db",
    "PGPASSWORD={s} psql",
]
CACHE_URLS = [
    "{s}",
    "redis://:{s}@cache:6379/0",
    "redis://me:{s}@cache/0",
    "redis://{s}@cache/0",
    "redis://:p[{s}]w@h",
    "redis://:{s}@[::1]:6379/0",
    "redis://:{s}@cache/bots",
    "redis://:{s}@cache?db=0",
    "redis://cache/0?password={s}",
    "rediss://:{s}@cache:6380/0?ssl_cert_reqs=CERT_NONE",
    "unix://:{s}@/run/redis.sock?db=0",
    "memcached://me:{s}@cache:11211",
    "memcached://cache:{s}@x",
    "name.redis.cache.windows.net:6380,password={s},ssl=True,abortConnect=False",
    "redis:// :{s}@cache",
    "redis-cli -h cache -a {s}",
    "amqp://me:{s}@mq/vhost",
]
OTHERS = {
    "failed_attempts": ["redis://:{s}@cache/1", "async+redis://me:{s}@cache", "cache:6379,password={s}"],
    "trusted_proxies": ["http://me:{s}@proxy:3128"],
    "realm": ['"password={s}"'],
    "mounts": ["https://me:{s}@example.com/api"],
    "default_account": ['"api_key: {s}'],
}


def pieces(secret: str) -> set[str]:
    """All parts of a secret that are long enough, as they stand and percent-encoded."""
    spellings = (secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1])
    found = {text[at : at + PIECE] for text in spellings for at in range(len(text) - PIECE + 1)}
    return {piece for piece in found if len(set(piece)) > 2}  # ****** is in messages anyway.


def messages(name: str, value: str) -> Iterator[str]:
    """Everything that is said of a setting with this value."""
    values = {"database_url": "embedded:", "routes": ["bot /bots/{ref}"], name: value}
    try:
        made = Settings(**values)
    except ConfigurationError as error:
        yield f"{error} {error.hint} {error!r} {error.mistakes}"
        return
    if name.endswith("_url"):
        yield repr(made)
        yield str(shown(getattr(made, name)))
        yield from map(str, mistakes_of(made))
    else:
        with pytest.raises(ConfigurationError) as caught:
            compile_routes(made)
        yield str(caught.value)


TEMPLATES = [
    *(("database_url", one) for one in DATABASE_URLS),
    *(("listen_url", one) for one in DATABASE_URLS),
    *(("cache_url", one) for one in CACHE_URLS),
    *((name, one) for name, some in OTHERS.items() for one in some),
]


@pytest.mark.parametrize(("name", "template"), TEMPLATES)
@given(secret=SECRETS)
@example(secret="12/HUNTER2ELEVEN")
@example(secret="12?HUNTER2=ELEVEN22")
@example(secret="PASS?WORD_OPTION=1")
@example(secret="1234567890")
@example(secret="A@B:SECRET@CDEFGHI")
@example(secret="[SECRETSECRET]")
@example(secret="#SECRETSECRET")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_piece_of_a_secret_reaches_a_message(name: str, template: str, secret: str) -> None:
    for value in {template.format(s=secret), template.format(s=quote(secret, safe=""))}:
        said = " ".join(messages(name, value))
        assert not [piece for piece in pieces(secret) if piece in said and piece not in OWN_WORDS]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cache_url", "redis://:p[SECRET]w@h", "SMARTER_AUTH_CACHE_URL: "),
        (
            "database_url",
            "mysql://me:sesame@db/bots",
            "SMARTER_AUTH_DATABASE_URL: a URL that begins with postgresql://",
        ),
        ("listen_url", "p", "what is set has 1 character and is not shown"),
        ("cache_url", "cache.windows.net:6380,password=x,ssl=True", "what is set has 42 characters and is not shown"),
        ("failed_attempts", "redis://:sesame@cache", "='redis://:***@cache': NUMBER/second"),
        ("failed_attempts", "cache:6379,password=sesame", "='26 characters, not shown': NUMBER/second"),
        ("routes", "bot https://me:sesame@h/{ref}", "SMARTER_AUTH_ROUTES='the URL (29 characters, not shown)': "),
        ("trusted_proxies", "here", "SMARTER_AUTH_TRUSTED_PROXIES='here': IPv4 and IPv6 addresses and networks"),
    ],
)
def test_a_refused_value_is_told_by_variable_rule_and_length(name: str, value: str, said: str) -> None:
    assert said in " ".join(messages(name, value))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:sesame@db/bots", "postgresql://me:***@db/bots"),
        ("postgresql://me:ses@me@db/bots", "postgresql://me:***@db/bots"),
        ("postgresql://me@db:5432,other/bots", "postgresql://me@db:5432,other/bots"),
        ("postgresql:///bots?host=/run/postgresql", "postgresql:///bots?host=/run/postgresql"),
        ("postgresql://[::1]:5432/bots", "postgresql://[::1]:5432/bots"),
        ("redis://:sesame@cache", "redis://:***@cache"),
        ("redis://sesame@cache/0", "redis://***@cache/0"),
        ("unix://:sesame@/run/redis.sock?db=0", "unix://:***@/run/redis.sock?db=0"),
        ("postgresql://db/bots?user=me&password=sesame&x=1", "postgresql://db/bots?user=me&password=***&***"),
        (
            "postgresql://db/bots?sslmode=require&sslpassword=ses%26",
            "postgresql://db/bots?sslmode=require&sslpassword=***",
        ),
        ("postgresql://db/bots?p%61ssword=sesame", "postgresql://db/bots?***"),
        ("embedded:", "embedded:"),
        ("embedded:///srv/keys", "embedded:///srv/keys"),
        ("memory://", "memory://"),
        ("redis://cache?Password=sesame#x", "the URL (31 characters, not shown)"),
        ("me:sesame@db/bots", "the URL (17 characters, not shown)"),
        ("mysql:me:sesame@db/bots", "the URL (23 characters, not shown)"),
        ("postgresql://me:ses/ame@db/bots", "the URL (31 characters, not shown)"),
        ("postgresql://me:12/sesame@db/bots", "the URL (33 characters, not shown)"),
        ("postgresql://db/bots?password=ses@me", "the URL (36 characters, not shown)"),
        ("redis://me:123456", "the URL (17 characters, not shown)"),
    ],
)
def test_a_url_is_shown_only_if_nothing_in_it_can_be_a_piece_of_the_password(url: str, said: str) -> None:
    assert mask_url(url) == said


def test_other_values_are_shown_unless_they_may_hold_a_secret() -> None:
    assert shown_value("bot /bots/{id}") == "bot /bots/{id}"
    assert shown_value("https://admin.example.com") == "https://admin.example.com"
    assert shown_value("x" * 300) == "xxxx…"
    assert shown_value("- " * 300) == "- " * 100 + "…"
    for suspect in ("a@b", '{"password":"x"}', "Password = x", "api_key:x", "AUTH=x", "pwd=x"):
        assert shown_value(suspect) == f"{len(suspect)} characters, not shown"
