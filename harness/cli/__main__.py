"""``python -m harness.cli.app``."""

from harness.cli.app import main

main()
