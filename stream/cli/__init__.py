"""The `spanwatch` command: each module here wires one group of commands and decides nothing."""

from __future__ import annotations

from stream.cli.app import main

__all__ = ["main"]
