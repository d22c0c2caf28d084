"""`python -m diffharness`."""

from diffharness.cli import main

main()
