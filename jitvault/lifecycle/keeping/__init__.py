"""Renew held tasks, many at once."""
