"""The life of a task, from request to receipt. Start in `advance.py`."""
