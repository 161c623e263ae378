"""Start the sandbox."""
