"""Policy decisions by Cedar, and a check for unreachable rules.

Callers use `interface.py`.
"""
