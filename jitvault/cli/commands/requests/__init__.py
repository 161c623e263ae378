"""Write a spec, ask for its access, ask for more time."""
