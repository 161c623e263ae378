"""Just-in-time access for AI agents: granted for one task, taken back, and proven."""

__version__ = "0.1.0"
