"""${message}."""

from alembic import op
import sqlalchemy as sa
from jitvault.ledger.storage.schema import UtcTime
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
