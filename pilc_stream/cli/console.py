"""How things are said: sentences and progress on standard error, results on standard output, numbers for people."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from pilc_stream.cli.options import DEBUG

if TYPE_CHECKING:
    from rich.console import Console

FAILURES_SHOWN = 10


def output() -> Console:
    """Standard output, for tables. File names are data: nothing in them is markup or to be coloured."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=True)


def messages() -> Console:
    """Standard error, for progress."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Meanwhile standard output is closed, and nobody but us writes to standard error.

    Libraries do, in C and in Python: libtiff about every odd tag, Pillow about odd files (whose reasons are listed in
    the data set), Ray about actors that die. All of it is let through under `--debug`.
    """
    context = click.get_current_context(silent=True)
    debug = context is not None and context.meta.get(DEBUG)
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        if not debug:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(_own_standard_error())
        yield


@contextmanager
def _own_standard_error() -> Iterator[None]:
    """Lead file descriptor 2 nowhere, and `sys.stderr` to where that led before."""
    python_side = sys.stderr
    try:
        is_real = python_side.fileno() == 2
    except (OSError, ValueError, AttributeError):
        is_real = False
    if not is_real:
        # Somebody has put another stream there, a test for instance.
        yield
        return
    python_side.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere, os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as ours:
        os.dup2(nowhere.fileno(), 2)
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = python_side
            os.dup2(saved, 2)
            os.close(saved)


def sentence(text: str) -> None:
    """Say something on standard error."""
    click.echo(f"pilc: {text}", err=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print a small table of names and values."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    output().print(table)


def print_failures(lines: Iterable[tuple[str, str]], total: int, where: str) -> None:
    """Print the first failures, each a name and a reason, and where the others are."""
    console, shown = output(), 0
    for name, reason in lines:
        if shown == FAILURES_SHOWN:
            break
        shown += 1
        console.print(f"  {name}: {reason}")
    if total > shown:
        console.print(f"  ... and {total - shown:,} more")
    if where:
        console.print(where)


def size(count: float) -> str:
    """Bytes for people: 999 B, 12.3 kB, 4.56 GB."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if abs(count) < 999.5:
            break
        count, unit = count / 1000, larger
    if unit == "B":
        return f"{count:.0f} B"
    return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"


def counted(count: int, noun: str) -> str:
    """So many of something: 1 shard, 2 shards."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3:07 min, 2:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def per_cent(part: float, whole: float) -> str:
    """`part` of `whole` in per cent; "-" of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def bits(value: float | None) -> str:
    """Bits per sub-pixel; "-" where there are no pixels."""
    return "-" if value is None else f"{value:.3f}"
