"""Revoke a task's tokens and leases, and those of its delegated tasks.

A delegated task stands below the task.
"""
