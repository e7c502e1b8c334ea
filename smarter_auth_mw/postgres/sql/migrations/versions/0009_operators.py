"""Operators of the management API and its pages, in tables that only the owner reads or writes."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run("versions/0009_operators.up.sql")


def downgrade() -> None:
    run("versions/0009_operators.down.sql")
