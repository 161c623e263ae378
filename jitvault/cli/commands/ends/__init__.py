"""End tasks: revoke, complete, freeze, kill switch, findings."""
