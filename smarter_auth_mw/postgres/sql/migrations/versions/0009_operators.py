"""Operators: who may use the management API and its pages, out of the reach of every role but the owner."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run("versions/0009_operators.up.sql")


def downgrade() -> None:
    run("versions/0009_operators.down.sql")
