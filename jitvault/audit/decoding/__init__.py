"""Decode the bytes of an audit line into its entry."""
