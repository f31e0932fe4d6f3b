"""turns of tenants, and indexes of the queue"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

QUEUED = sa.text("status = 'queued'")
FINISHED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "turns",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("served", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_turns")),
    )
    op.execute("INSERT INTO turns (tenant_id, served) SELECT DISTINCT tenant_id, 0 FROM jobs")
    op.drop_index(op.f("ix_jobs_status_priority_queued_at_id"), "jobs")
    op.create_index(op.f("ix_jobs_tenant_id_status_id"), "jobs", ["tenant_id", "status", "id"])
    order = (sa.text("priority DESC"), "queued_at", "id")
    op.create_index("ix_jobs_queue", "jobs", [*order], postgresql_where=QUEUED, sqlite_where=QUEUED)
    op.create_index(
        "ix_jobs_queue_of_tenant", "jobs", ["tenant_id", *order], postgresql_where=QUEUED, sqlite_where=QUEUED
    )
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"], postgresql_where=FINISHED, sqlite_where=FINISHED)


def downgrade() -> None:
    op.drop_index("ix_jobs_finished_at", "jobs")
    op.drop_index("ix_jobs_queue_of_tenant", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    op.drop_index(op.f("ix_jobs_tenant_id_status_id"), "jobs")
    op.create_index(op.f("ix_jobs_status_priority_queued_at_id"), "jobs", ["status", "priority", "queued_at", "id"])
    op.drop_table("turns")
