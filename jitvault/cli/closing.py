"""What is done at the end of a command, however it ends: what a process has of its own in Vault is ended."""

from __future__ import annotations

from contextlib import ExitStack

on_exit = ExitStack()
"""`main` closes it; it is empty then, and can be filled again."""
