"""From the bytes of an audit line to its entry."""
