"""The command line."""

from karat.cli.main import main

__all__ = ["main"]
