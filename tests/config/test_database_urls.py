"""URLs as providers print them and psql takes them: used, mapped, or refused by the option's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from smarter_auth_mw.config.database_urls import DatabaseUrlError, Host, parse_database_url
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.errors import ConfigurationError

PRINTED = {
    "Neon": (
        "postgresql://neondb_owner:npg_9x@ep-cool-1-pooler.us-east-2.aws.neon.tech/neondb"
        "?sslmode=require&channel_binding=require",
        "ep-cool-1-pooler.us-east-2.aws.neon.tech:5432",
        {"dbname": "neondb", "sslmode": "require", "channel_binding": "require"},
    ),
    "Neon, for clients that do not name the host": (
        "postgres://me:pw@ep-cool-1.us-east-2.aws.neon.tech/neondb?options=endpoint%3Dep-cool-1&sslmode=require",
        "ep-cool-1.us-east-2.aws.neon.tech:5432",
        {"options": "endpoint=ep-cool-1"},
    ),
    "Supabase, directly": (
        "postgresql://postgres:pw@db.abcdefgh.supabase.co:5432/postgres",
        "db.abcdefgh.supabase.co:5432",
        {"user": "postgres"},
    ),
    "Supabase, its session pooler": (
        "postgres://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        "aws-0-eu-central-1.pooler.supabase.com:5432",
        {"user": "postgres.abcdefgh"},
    ),
    "Supabase, for Prisma": (
        "postgresql://postgres.abcdefgh:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres"
        "?pgbouncer=true&connection_limit=1",
        "aws-0-eu-central-1.pooler.supabase.com:6543",
        {"pgbouncer": "true"},
    ),
    "Supabase, by Vercel": (
        "postgres://postgres.abcdefgh:pw@aws-0-us-east-1.pooler.supabase.com:6543/postgres"
        "?sslmode=require&supa=base-pooler.x",
        "aws-0-us-east-1.pooler.supabase.com:6543",
        {"sslmode": "require"},
    ),
    "Vercel, for Prisma": (
        "postgres://default:pw@ep-x-pooler.us-east-1.postgres.vercel-storage.com:5432/verceldb"
        "?pgbouncer=true&connect_timeout=15&sslmode=require",
        "ep-x-pooler.us-east-1.postgres.vercel-storage.com:5432",
        {"connect_timeout": "15"},
    ),
    "RDS": (
        "postgresql://app:p%40ss%2Fword@mydb.abc123.eu-central-1.rds.amazonaws.com:5432/app?sslmode=require",
        "mydb.abc123.eu-central-1.rds.amazonaws.com:5432",
        {"password": "p@ss/word"},
    ),
    "Aurora, writer and reader": (
        "postgresql://app:pw@c.cluster-abc.eu-west-1.rds.amazonaws.com:5432,"
        "c.cluster-ro-abc.eu-west-1.rds.amazonaws.com:5432/app?target_session_attrs=read-write",
        "c.cluster-abc.eu-west-1.rds.amazonaws.com:5432 c.cluster-ro-abc.eu-west-1.rds.amazonaws.com:5432",
        {"target_session_attrs": "read-write"},
    ),
    "Azure, single server": (
        "postgresql://app%40myserver:pw@myserver.postgres.database.azure.com:5432/app?sslmode=require",
        "myserver.postgres.database.azure.com:5432",
        {"user": "app@myserver"},
    ),
    "Azure, flexible": (
        "postgresql://app:pw@srv.postgres.database.azure.com/app?sslmode=verify-full&sslrootcert=system",
        "srv.postgres.database.azure.com:5432",
        {"sslrootcert": "system"},
    ),
    "Cloud SQL, its socket": (
        "postgresql://app:pw@/app?host=/cloudsql/project:europe-west1:db",
        "/cloudsql/project:europe-west1:db:5432",
        {"dbname": "app"},
    ),
    "Cloud SQL, its socket with a host for show": (
        "postgresql://app:pw@localhost/app?host=/cloudsql/project:europe-west1:db",
        "/cloudsql/project:europe-west1:db:5432",
        {"user": "app"},
    ),
    "Cloud SQL, its socket in the place of the host": (
        "postgresql://app:pw@%2Fcloudsql%2Fproject%3Aeurope-west1%3Adb/app",
        "/cloudsql/project:europe-west1:db:5432",
        {"dbname": "app"},
    ),
    "Heroku": (
        "postgres://u1a2:p3b4@ec2-52-1-2-3.compute-1.amazonaws.com:5432/d5c6",
        "ec2-52-1-2-3.compute-1.amazonaws.com:5432",
        {"user": "u1a2"},
    ),
    "Render, inside": ("postgresql://app:pw@dpg-abc123-a/app", "dpg-abc123-a:5432", {"dbname": "app"}),
    "Render, outside": (
        "postgresql://app:pw@dpg-abc123-a.oregon-postgres.render.com/app",
        "dpg-abc123-a.oregon-postgres.render.com:5432",
        {},
    ),
    "Fly": ("postgres://app:pw@app-db.flycast:5432/app?sslmode=disable", "app-db.flycast:5432", {"sslmode": "disable"}),
    "Fly, by IPv6": ("postgres://app:pw@[fdaa:0:1::3]:5433/app", "[fdaa:0:1::3]:5433", {}),
    "Docker Compose": ("postgresql://postgres:postgres@db:5432/app", "db:5432", {"password": "postgres"}),
    "Docker, from inside": ("postgresql://postgres@host.docker.internal/app", "host.docker.internal:5432", {}),
    "Docker, an underscore": ("postgresql://postgres:pw@my_db:5432/app", "my_db:5432", {}),
    "Railway": (
        "postgresql://postgres:pw@postgres.railway.internal:5432/railway",
        "postgres.railway.internal:5432",
        {},
    ),
    "DigitalOcean": (
        "postgresql://doadmin:pw@db-postgresql-fra1-1-do-user-1.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
        "db-postgresql-fra1-1-do-user-1.db.ondigitalocean.com:25060",
        {},
    ),
    "Aiven": (
        "postgres://avnadmin:pw@pg-x.aivencloud.com:12691/defaultdb?sslmode=verify-ca&sslrootcert=ca.pem",
        "pg-x.aivencloud.com:12691",
        {"sslrootcert": "ca.pem"},
    ),
    "JDBC's ssl": ("postgresql://app@db/app?ssl=true", "db:5432", {"sslmode": "require"}),
    "node's ssl": ("postgresql://app@db/app?sslmode=no-verify", "db:5432", {"sslmode": "require"}),
    "SQLAlchemy's ssl": ("postgresql://app@db/app?ssl=verify-full", "db:5432", {"sslmode": "verify-full"}),
    "old psql's ssl": ("postgresql://app@db/app?requiressl=1", "db:5432", {"sslmode": "require"}),
    "Prisma's schema": ("postgresql://app@db/app?schema=public", "db:5432", {}),
    "keepalives": (
        "postgresql://app@db/app?keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5"
        "&tcp_user_timeout=10000",
        "db:5432",
        {"keepalives_idle": "30"},
    ),
    "no GSSAPI": ("postgresql://app@db/app?gssencmode=disable", "db:5432", {}),
    "a name": ("postgresql://app@db/app?application_name=bots", "db:5432", {"application_name": "bots"}),
    "a fallback name": (
        "postgresql://app@db/app?fallback_application_name=bots",
        "db:5432",
        {"application_name": "bots"},
    ),
    "a setting": (
        "postgresql://app@db/app?options=-c%20search_path%3Dapp",
        "db:5432",
        {"options": "-c search_path=app"},
    ),
    "a plus": ("postgresql://app@db/app?password=a+b", "db:5432", {"password": "a+b"}),
    "hosts that are balanced": (
        "postgresql://app@a,b:5433/app?load_balance_hosts=random",
        "a:5432 b:5433",
        {},
    ),
    "hosts behind the ?": ("postgresql:///app?host=a,b&port=5433,5434", "a:5433 b:5434", {}),
    "an address": ("postgresql://app@db/app?hostaddr=10.0.0.7", "10.0.0.7:5432", {}),
    "TLS at once": (
        "postgresql://app@db/app?sslmode=require&sslnegotiation=direct",
        "db:5432",
        {"sslnegotiation": "direct"},
    ),
    "the socket of this machine": ("postgresql:///app", "", {"dbname": "app"}),
    "CockroachDB": (
        "postgresql://me:pw@free-tier.gcp-us-central1.cockroachlabs.cloud:26257/defaultdb?sslmode=verify-full"
        "&sslrootcert=/home/me/.postgresql/root.crt&options=--cluster%3Dblack-bear-1",
        "free-tier.gcp-us-central1.cockroachlabs.cloud:26257",
        {"options": "--cluster=black-bear-1"},
    ),
    "Timescale": (
        "postgres://tsdbadmin:pw@abc.def.tsdb.cloud.timescale.com:34567/tsdb?sslmode=require",
        "abc.def.tsdb.cloud.timescale.com:34567",
        {"dbname": "tsdb"},
    ),
    "Prisma Postgres": (
        "postgres://abc:sk_pw@db.prisma.io:5432/?sslmode=require",
        "db.prisma.io:5432",
        {"user": "abc"},
    ),
    "Python's ssl": ("postgresql://app@db/app?ssl=True", "db:5432", {"sslmode": "require"}),
    "a zone": ("postgresql://app@[fe80::1%25eth0]:5432/app", "[fe80::1%eth0]:5432", {}),
    "several addresses": ("postgresql://app@[::1],[::2]:5433,c/app", "[::1]:5432 [::2]:5433 c:5432", {}),
    "an option given twice": (
        "postgresql://app@db/app?sslmode=require&sslmode=disable",
        "db:5432",
        {"sslmode": "disable"},
    ),
    "no password": ("postgresql://app:@db/app", "db:5432", {"user": "app"}),
}


@pytest.mark.parametrize("provider", PRINTED)
def test_urls_that_people_are_given_are_taken(provider: str) -> None:
    url, hosts, options = PRINTED[provider]
    address = parse_database_url(url, {})
    assert " ".join(map(str, address.hosts)) == hosts
    assert options.items() <= address.options.items()


REFUSED = {
    "postgresql://app@db/app?sslmode=on": "sslmode: one of disable, allow",
    "postgresql://app@db/app?target_session_attrs=standby": "target_session_attrs: keys are read from the primary",
    "postgresql://app@db/app?gssencmode=require": "gssencmode: ",
    "postgresql://app@db/app?require_auth=scram-sha-256": "require_auth: ",
    "postgresql://app@db/app?requirepeer=postgres": "requirepeer: ",
    "postgresql://app@db/app?client_encoding=latin1": "client_encoding: ",
    "postgresql://app@db/app?replication=database": "replication: ",
    "postgresql://app@db/app?channel_binding=require&sslmode=disable": "channel_binding: ",
    "postgresql://app@db/app?sslrootcert=system&sslmode=require": "sslrootcert: ",
    "postgresql://app@db/app?connect_timeout=2s": "connect_timeout: whole seconds",
    "postgresql://app@db/app?sslmod=require": "sslmod: psql knows no such option; the nearest is sslmode",
    "postgresql://app@db/app?search_path=x": "options=-c%20search_path%3DVALUE",
    "postgresql://app@db/app?statement_cache_size=0": "SMARTER_AUTH_STATEMENT_CACHE_SIZE",
    "postgresql://app@db/app?unix_sock=/cloudsql/x/.s.PGSQL.5432": "host",
    "postgresql://app@db/app?service=nowhere": "service=nowhere: there is no such section",
    "postgresql://app@db:543310/app": "port: a number between 1 and 65535",
    "postgresql://app@db:0/app": "port: a number between 1 and 65535",
    "postgresql://app@h..x/app": "host: ",
    "postgresql://app@a b/app": "host: ",
    "postgresql://app@a,b,c:1,2/app?port=1,2": "port: 2 ports for 4 hosts",
    "postgresql://app:pa#ss@db/app": "%23",
    "postgresql://app:p@ss@db/app": "%40",
    "postgresql://app:100%@db/app": "%25",
    "postgresql://app@[::1/app": "IPv6",
    "postgresql+asyncpg://app@db/app": "postgresql://",
    "jdbc:postgresql://db/app": "postgresql://",
    "host=db dbname=app": "postgresql://",
    "'postgresql://app@db/app'": "without quotes",
    '"postgresql://app@db/app"': "without quotes",
    "psql 'postgresql://app@db/app'": "without psql",
    "psql postgresql://app@db/app": "without psql",
    "postgresql://app@db/app?ssl=maybe": "ssl: true, false or a value of sslmode",
    "postgresql://app@db/app?SSLMODE=require": "SSLMODE: psql knows no such option; the nearest is sslmode",
    "postgresql://app@db/app?targetServerType=primary": "no such option; leave it out, or",
    "postgresql://app@db/app?currentSchema=app": "a schema of their own",
    "postgresql://app@db/app?max_pool_size=10": "SMARTER_AUTH_POOL_MAX",
    "postgresql://app@db/app?pool_size=10": "SMARTER_AUTH_POOL_MAX",
    "postgresql://app@db/app?command_timeout=60": "SMARTER_AUTH_QUERY_TIMEOUT_S",
    "postgresql://app@db/app?prepareThreshold=0": "SMARTER_AUTH_STATEMENT_CACHE_SIZE",
    "postgresql://app@db/app?prepared_statements=false": "SMARTER_AUTH_STATEMENT_CACHE_SIZE",
    "postgresql://app@db/app?oauth_issuer=https://x.example": "oauth_issuer: the driver has no OAuth",
    "postgresql://app@db/app?sslnegotiation=direct": "sslnegotiation: direct needs sslmode=require",
    "postgresql://app@db/app?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2": "is older than",
    "postgresql://app@db/app?sslcertmode=require": "sslcertmode: ",
    "postgresql://app@a,b/app?load_balance_hosts=roundrobin": "load_balance_hosts: ",
    "postgresql://app@::1/app": "IPv6 address in brackets",
    "postgresql://app@[db]/app": "IPv6 address in brackets",
    "postgresql://<USER>:<PASSWORD>@<HOST>/<DATABASE>": "host: ",
    "postgresql://${HOST}/app": "host: ",
    "postgresql:///app?port=abc": "port: a number",
    "postgresql://:99999/app": "port: a number",
    "embedded": "a URL that begins with",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_used_is_refused_at_start_up_with_its_name_and_what_to_write(url: str) -> None:
    for setting in ("database_url", "listen_url"):
        values = {"database_url": "postgresql://db/app", "routes": ["bot /bots/{ref}"]} | {setting: url}
        with pytest.raises(ConfigurationError) as refused:
            Settings(**values)
        assert REFUSED[url] in str(refused.value)
        assert f"SMARTER_AUTH_{setting.upper()}" in str(refused.value)


@pytest.mark.parametrize("around", ["{}\n", " {}", "\t{} \r\n"])
def test_line_breaks_and_blanks_around_a_url_do_not_count(around: str) -> None:
    urls = {"database_url": "postgresql://app@db/app", "listen_url": "postgresql://a/app", "cache_url": "redis://db"}
    settings = Settings(routes=["bot /bots/{ref}"], **{name: around.format(url) for name, url in urls.items()})
    assert {name: getattr(settings, name).get_secret_value() for name in urls} == urls


def test_a_refusal_quotes_nothing_of_the_password() -> None:
    for url in (
        "postgresql://app:ses/ame@db/app",
        "postgresql://app:ses?ame@db/app",
        "postgresql://app:ses#ame@db/app",
    ):
        with pytest.raises(DatabaseUrlError) as refused:
            parse_database_url(url, {})
        assert "ses" not in str(refused.value)
        assert "ame@" not in str(refused.value)


def test_the_environment_completes_the_url_and_does_not_change_it() -> None:
    environment = {"PGHOST": "elsewhere", "PGPORT": "5433", "PGSSLMODE": "require", "PGUSER": "somebody"}
    address = parse_database_url("postgresql://app@db/app", environment)
    assert address.hosts == (Host("db", 5433),)
    assert (address.options["user"], address.options["sslmode"]) == ("app", "require")
    assert parse_database_url("postgresql:///app", environment).hosts == (Host("elsewhere", 5433),)


def test_a_service_is_looked_up_as_psql_does(tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("# ours\n[bots]\nhost=db1,db2\nport=5433\nuser=app\nsslmode=require\n[wrong]\nhots=x\n")
    environment = {"PGSERVICEFILE": str(file)}
    address = parse_database_url("postgresql://other@/app?service=bots", environment)
    assert address.hosts == (Host("db1", 5433), Host("db2", 5433))
    assert (address.options["user"], address.options["sslmode"]) == ("other", "require")
    assert parse_database_url("postgresql:///app", environment | {"PGSERVICE": "bots"}).hosts == address.hosts
    with pytest.raises(DatabaseUrlError, match="hots: psql knows no such option"):
        parse_database_url("postgresql:///app?service=wrong", environment)


def test_a_url_for_a_pooler_leaves_statements_without_names() -> None:
    routes = ["bot /bots/{ref}"]
    url = "postgresql://app@db:6543/app?pgbouncer=true"
    assert Settings(database_url=url, routes=routes).statement_cache_size == 0
    assert Settings(database_url=url, routes=routes, statement_cache_size=100).statement_cache_size == 100
    assert Settings(database_url="postgresql://app@db/app", routes=routes).statement_cache_size == 100


def test_the_bundled_database_is_not_listened_to_by_a_url() -> None:
    with pytest.raises(ConfigurationError, match="SMARTER_AUTH_LISTEN_URL"):
        Settings(database_url="embedded:", listen_url="embedded:", routes=["bot /bots/{ref}"])
