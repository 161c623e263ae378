"""Compare ledger, Vault and audit stream, and revoke credentials that belong to no task."""
