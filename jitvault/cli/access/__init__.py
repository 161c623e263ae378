"""What a command does to have access for a task, and to give it back."""
