"""Code that is broken on purpose, and the tests that have to notice: `make mutants`."""
