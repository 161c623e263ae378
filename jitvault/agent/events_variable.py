"""How the program that starts a command asks to be told what happens. Pure."""

VARIABLE = "JITVAULT_EVENTS_FD"
"""The variable with the number of a descriptor, to which `command_events` are written."""
