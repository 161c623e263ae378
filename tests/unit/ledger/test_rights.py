"""Which statements give a login its rights at a ledger on PostgreSQL."""

from __future__ import annotations

import pytest

from jitvault.errors import UsageError
from jitvault.ledger.storage.rights import grants


def test_grants_to_every_role_of_the_server_are_refused() -> None:
    with pytest.raises(UsageError, match="every role of the server"):
        grants("public", writes=False)
    # this is a role's name, for PostgreSQL takes the word in lower case alone
    assert 'GRANT USAGE ON SCHEMA "public" TO "Public"' in grants("Public", writes=False)
