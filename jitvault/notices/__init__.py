"""Tell people outside what happened."""
