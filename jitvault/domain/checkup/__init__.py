"""What `jitvault doctor` looks at: each module judges the facts of one area, and knows no client."""
