"""What an approver reads and signs, and what is wrong with policies."""
