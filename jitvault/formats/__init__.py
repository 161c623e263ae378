"""Values that know nothing of tasks: canonical JSON, strict YAML, secrets, times, networks."""
