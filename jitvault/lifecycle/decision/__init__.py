"""Decide about requests, and whether a decision still holds."""
