"""Audit lines from files: those of an audit device, and spools."""
