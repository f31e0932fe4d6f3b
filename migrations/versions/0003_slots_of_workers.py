"""slots of workers, states by age"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    # Workers that are alive announce themselves again.
    op.execute("DELETE FROM workers")
    with op.batch_alter_table("workers") as batch_op:
        batch_op.drop_column("device_classes")
        batch_op.drop_column("slots")
        batch_op.add_column(sa.Column("slots", JSON, nullable=False))
    op.create_index(op.f("ix_states_created_at"), "states", ["created_at"])
    op.add_column("jobs", sa.Column("worker_slot", sa.String(length=32), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "worker_slot")
    op.drop_index(op.f("ix_states_created_at"), "states")
    op.execute("DELETE FROM workers")
    with op.batch_alter_table("workers") as batch_op:
        batch_op.drop_column("slots")
        batch_op.add_column(sa.Column("slots", sa.BigInteger(), nullable=False))
        batch_op.add_column(sa.Column("device_classes", JSON, nullable=False))
