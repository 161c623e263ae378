"""Approve and deny, and the policies that decide."""
