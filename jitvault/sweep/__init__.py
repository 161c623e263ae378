"""Compare ledger, Vault and audit stream, and end what belongs to no task."""
