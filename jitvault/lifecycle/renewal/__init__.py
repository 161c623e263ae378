"""Renew a task's credentials until the task ends, and extend tasks on request."""
