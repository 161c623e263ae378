"""Revoke tokens and leases, also of what a task handed on."""
