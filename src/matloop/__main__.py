"""Run the command line as ``python -m matloop``."""

from matloop.cli import main

main()
