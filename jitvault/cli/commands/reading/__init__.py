"""Show tasks; export and verify what proves their end."""
