"""The command line."""

from matloop.cli.main import main

__all__ = ["main"]
