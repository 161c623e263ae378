"""Clean-up that runs whenever a command exits.

An example is revoking this process's own Vault token.
"""

from __future__ import annotations

from contextlib import ExitStack

on_exit = ExitStack()
"""Closed by `main`, which leaves it empty, so that the next command of the same process can fill it again."""
