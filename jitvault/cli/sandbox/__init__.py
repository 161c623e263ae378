"""What `jitvault dev` shows while it runs."""
