"""Run the command as ``python -m layerpeel.cli``."""

from layerpeel.cli.entry import main

main()
