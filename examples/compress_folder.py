"""Compress a folder of images into a data set: what `pilc compress` does, from Python.

Usage:
    python examples/compress_folder.py                      # the bundled pictures, into a temporary folder
    python examples/compress_folder.py PHOTOS DATASET       # your own; folders or URLs
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from workers.job import run_job
from workers.progress import Snapshot
from workers.report import JobReport
from workers.settings import JobSettings

PICTURES = Path(__file__).resolve().parent / "pictures"


class Lines:
    """Shows progress as lines; `workers.progress.Reporter` says what a reporter is told."""

    def __init__(self) -> None:
        self._done = 0

    def show(self, snapshot: Snapshot) -> None:
        """Called whenever something has changed."""
        if snapshot.images_done > self._done:
            self._done = snapshot.images_done
            print(f"  {self._done} of {snapshot.images} images", file=sys.stderr)

    def say(self, sentence: str) -> None:
        """Called with what a person should know."""
        print(f"  {sentence}", file=sys.stderr)


def compress(source: str, destination: str, profile: str = "fast", workers: int = 0) -> JobReport:
    """Compress `source` into `destination`. If it is interrupted, call it again: it goes on where it stopped."""
    settings = JobSettings(sources=(source,), destination=destination, profile=profile, workers=workers)
    return run_job(settings, Lines())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress a folder of images into a data set.")
    parser.add_argument("source", nargs="?", default=str(PICTURES), help="folder, glob or URL of images")
    parser.add_argument("destination", nargs="?", help="folder or URL of the data set; a temporary one if left out")
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--workers", type=int, default=0, help="Ray actors; 0 works in this process")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        destination = arguments.destination or f"{temporary}/dataset"
        report = compress(arguments.source, destination, arguments.profile, arguments.workers)
        totals = report.totals
        print(f"{totals.images} images in {totals.shards} shards, {totals.failed} of them failed")
        print(f"{totals.source_bytes:,} bytes of files became {totals.payload_bytes:,} bytes of payloads")
        for failure in report.failures:
            print(f"{failure.key}: {failure.reason}")


if __name__ == "__main__":
    main()
