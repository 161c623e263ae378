"""From a question to a decision: Cedar behind `interface.py`, and rules that can never apply."""
