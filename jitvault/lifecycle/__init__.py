"""A task's way from request to receipt. Start in `advance.py`."""
