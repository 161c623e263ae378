"""Revoke a task's tokens and leases, and those of the tasks delegated below it."""
