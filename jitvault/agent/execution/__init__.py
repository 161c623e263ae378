"""Run a program with a task's access, and leave nothing behind."""
