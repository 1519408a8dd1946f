"""`python -m digits` is the `digits` command."""

from digits.cli import main

main()
