"""Take a task's access, use it, and give it back: the agent's commands."""
