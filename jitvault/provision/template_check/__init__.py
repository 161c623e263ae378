"""Check whether the access that a template grants can be revoked.

The check is made on a real role.
"""
