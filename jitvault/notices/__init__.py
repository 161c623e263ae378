"""Notify people outside of what happened."""
