"""The life of a task, from its request to its receipt. Start in `advance.py`."""
