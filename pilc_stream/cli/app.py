"""The `pilc` command itself: its group, its exit codes, and what becomes of errors.

Exit codes: 0 all good, 1 some records failed (and were kept as they came), 2 wrong use, 3 the job failed, 130 and 143
interrupted. A crash is one sentence, its traceback shows under `--debug` or PILC_DEBUG=1.
"""

from __future__ import annotations

import os
import signal
import traceback
from types import FrameType
from typing import Any

import click

from pilc_stream._version import __version__
from pilc_stream.cli.bench import bench
from pilc_stream.cli.compress import compress
from pilc_stream.cli.console import print_json, sentence
from pilc_stream.cli.decompress import decompress
from pilc_stream.cli.demo import demo
from pilc_stream.cli.fit import fit
from pilc_stream.cli.frontier import frontier
from pilc_stream.cli.gc import gc
from pilc_stream.cli.inspect import inspect
from pilc_stream.cli.options import DEBUG, JSON, debug_option
from pilc_stream.cli.overhead import overhead
from pilc_stream.cli.plan import plan
from pilc_stream.cli.status import status
from pilc_stream.cli.train import train
from pilc_stream.cli.verify import verify
from pilc_stream.errors import PilcError, UsageError

EXIT_RECORDS_FAILED = 1
EXIT_USAGE = 2
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does."""


class Sentences(click.Group):
    """A group whose commands end with a sentence and an exit code, whatever they raise."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one meets them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as error:
            ctx.exit(EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has seen enough; nothing more can be said to them.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(EXIT_FAILED)
        except Exception as error:
            _explain(ctx, error)


def _explain(ctx: click.Context, error: Exception) -> None:
    """Say what went wrong and end with the code for it."""
    code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    if isinstance(error, PilcError):
        text = str(error)
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = (
            f"pilc crashed: {type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno}). "
            "This is a fault of pilc; run the command again with --debug and report what it shows."
        )
    if ctx.meta.get(DEBUG):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    sentence(text)
    if ctx.meta.get(JSON):
        print_json({"error": text, "exit_code": code})
    ctx.exit(code)


@click.group(cls=Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="pilc")
@debug_option
def cli() -> None:
    """Compress image data sets without losing a pixel, and read them back into training.

    \b
      pilc compress PHOTOS DATASET     images to a compressed data set
      pilc verify DATASET              is everything there, to the last pixel?
      pilc decompress DATASET FOLDER   and back to files
      pilc demo                        all of it, on pictures that come along

    Sources and destinations are folders or URLs: s3://, gs://, az://, http://, memory://.

    \b
    Exit codes: 0 all good; 1 some records failed and were kept as they came; 2 wrong use;
    3 the job failed. What a job has committed stays; run the same command again to go on.
    """


for command in (compress, decompress, verify, inspect, status, gc, plan, train, fit, bench, overhead, frontier, demo):
    cli.add_command(command)


def main() -> None:
    """Run `pilc` with the arguments of this process, and exit."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    cli(prog_name="pilc")
