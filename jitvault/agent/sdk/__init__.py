"""The access of a Python program: `from jitvault.agent import task`."""
