"""Writes the help texts that the tests compare with: `python tests/cli/regenerate_help.py`."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from pilc_stream.cli import cli

FOLDER = Path(__file__).resolve().parent / "help"
WIDTH = 100


def help_texts() -> dict[str, str]:
    """The help of `pilc` and of each of its commands, by name."""
    commands: list[tuple[str, ...]] = [(), *((name,) for name in cli.commands)]
    return {" ".join(("pilc", *command)).replace(" ", "-"): _help(command) for command in commands}


def _help(command: tuple[str, ...]) -> str:
    result = CliRunner().invoke(cli, [*command, "--help"], prog_name="pilc", terminal_width=WIDTH, color=False)
    if result.exit_code:
        raise click.ClickException(result.output)
    return result.output


def main() -> None:
    """Write the files, and delete those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    texts = help_texts()
    for path in FOLDER.glob("*.txt"):
        if path.stem not in texts:
            path.unlink()
    for name, text in texts.items():
        (FOLDER / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
