"""Compare ledger, Vault and audit stream.

Credentials that belong to no task are revoked.
"""
