"""Prove that what was revoked is gone."""
