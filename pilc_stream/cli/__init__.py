"""The command line: `pilc`. Thin: flags become arguments, reports become tables or JSON, errors become sentences.

A file per command. Heavy packages are imported by a command when it runs, so that `pilc --help` is quick.
"""

from pilc_stream.cli.app import cli, main

__all__ = ["cli", "main"]
