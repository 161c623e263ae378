"""The variable by which a program asks a command for its events.

It stands apart from the events, since every command looks at it and few need what decodes them.
"""

from __future__ import annotations

VARIABLE = "JITVAULT_EVENTS_FD"
"""The variable with the number of the descriptor that `command_events` are written to."""
