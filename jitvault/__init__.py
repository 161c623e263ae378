"""Just-in-time access for AI agents: granted, taken back, and proven.

Access is granted for one task.
"""

__version__ = "0.1.0"
