"""${message}."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    run("versions/${up_revision}_NAME.up.sql")


def downgrade() -> None:
    run("versions/${up_revision}_NAME.down.sql")
