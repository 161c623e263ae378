"""`python -m jitvault`."""

from jitvault.cli.app import main

main()
