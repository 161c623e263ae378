"""Look up names, freezes and rights, for several commands."""
