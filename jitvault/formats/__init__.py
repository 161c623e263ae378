"""Values that know nothing of tasks, such as canonical JSON and secrets."""
