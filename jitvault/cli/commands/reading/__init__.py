"""Show tasks, and export and verify what proves their end."""
