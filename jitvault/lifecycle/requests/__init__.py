"""The documents that people write and read: requests, decisions, ends, freezes."""
