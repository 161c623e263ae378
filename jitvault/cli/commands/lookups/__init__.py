"""What several commands look up before they act: names, freezes, who may end a task."""
