"""Issue a token for an approved task."""
