"""Keep what is held alive until its task ends."""
