"""Read the audit stream, and know whether it can be trusted."""
