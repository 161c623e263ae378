"""The documents that people write and read.

They are requests, decisions, ends and freezes.
"""
