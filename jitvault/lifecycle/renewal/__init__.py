"""Renew a task's credentials until it ends, and extend tasks on request."""
