"""Three database roles: owner, runtime and manager; what is revoked stays revoked, whoever writes."""

from __future__ import annotations

from smarter_auth_mw.postgres.migrations import run

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    run("versions/0008_roles.up.sql")


def downgrade() -> None:
    run("versions/0008_roles.down.sql")
