"""Models that are out of the live order, beside the cascade that still names them.

It adds one table and touches no other, so processes of schema 0001 go on while and after it runs: they read and
write what they know. Until they are replaced they send by the whole cascade, models that are out included, and a
cascade they set leaves this table as it is. Started anew they refuse, as with any newer schema.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "models_out",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("why", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("revision", sa.Integer, sa.ForeignKey("ledger.revision"), nullable=False),
    )
