"""What Alembic runs: its settings, then the migrations and the grants, all in one transaction."""

from __future__ import annotations

from alembic import context

from smarter_auth_mw.migrations import configure, grant, run

configure()
with context.begin_transaction():
    run("prepare.sql")
    context.run_migrations()
    grant()
