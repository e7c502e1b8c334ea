"""Times within the calendar: no infinity, and no year that programs cannot read."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run("versions/0011_calendar.up.sql")


def downgrade() -> None:
    run("versions/0011_calendar.down.sql")
