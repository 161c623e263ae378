"""The rules that show in an audit line what must not happen."""
