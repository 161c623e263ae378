"""The rules by which a line shows what must not happen."""
