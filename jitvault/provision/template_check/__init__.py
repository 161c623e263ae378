"""Check on a real role whether the access that a template grants can be revoked."""
