"""Revoke many tasks at once, tokens before leases."""
