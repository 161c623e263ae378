"""The agent's commands: take a task's access, use it, give it back."""
