"""Alembic's environment: runs migrations and the steps after them, all in one transaction."""

from __future__ import annotations

from alembic import context

from smarter_auth_mw.postgres.migrations import configure, run, settle

configure()
with context.begin_transaction():
    run("own.sql")
    run("prepare.sql")
    context.run_migrations()
    settle()
