"""The command line."""

from karat24.cli.main import main

__all__ = ["main"]
