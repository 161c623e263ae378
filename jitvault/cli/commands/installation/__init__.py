"""Set up and run an installation: Vault, worker, ledger, audit."""
