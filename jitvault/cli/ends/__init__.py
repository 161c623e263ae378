"""How tasks are ended and frozen, and what is said where that is not proven."""
