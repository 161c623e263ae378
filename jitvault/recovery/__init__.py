"""Make a lost ledger anew from Vault and the audit log."""
