"""The documents in Vault's KV: envelopes, paths, signed and published."""
