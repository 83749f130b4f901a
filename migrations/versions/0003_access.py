"""When access tokens end, when they and sessions were last used, and when sign-in links were made and opened.

It adds columns that may be empty and touches no trigger, so processes of schema 0002 go on while and after it runs:
they read and write what they know. Until they are replaced they let in an access token that has run out, and note no
use. A sign-in link that was ended is refused by them too, because ending it also ends its time.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ADDED = {
    "access_tokens": ("expires_at", "last_used_at"),
    "sessions": ("created_at", "opened_at", "last_used_at"),
}


def upgrade() -> None:
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, sa.Column(column, sa.String(32)))
