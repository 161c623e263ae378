"""Verify a receipt offline: without Vault, ledger or settings."""
