"""How a task is requested, and its grant awaited."""
