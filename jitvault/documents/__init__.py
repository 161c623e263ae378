"""What lies in Vault's KV: envelopes, paths, signed and published documents."""
