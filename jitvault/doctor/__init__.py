"""`jitvault doctor`: the facts, and what each of them means."""
