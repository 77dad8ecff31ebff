"""`python -m stream` is the `spanwatch` command."""

from stream.cli import main

main()
