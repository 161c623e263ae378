"""What is recorded of a task: its history, receipt and report."""
