"""Fuzz a target with atheris, guided by coverage: ``python tests/fuzz/fuzz.py sealed --minutes 30`` (extra `fuzz`).

A finding ends the run with a traceback and leaves its input beside the corpus; without one, the last lines tell how
many executions there were. Targets are those of `fuzz_targets.py`; `--corpus` keeps what was found between runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

# What pytest finds by its `pythonpath` setting.
sys.path.append(str(Path(__file__).resolve().parents[1] / "codecs"))

with atheris.instrument_imports(include=["pilc_stream"], enable_loader_override=False):
    from fuzz_targets import MAX_INPUT_BYTES, TARGETS, seeds


def main() -> None:
    """Write the seeds, then fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    arguments = parser.parse_args()
    folder = arguments.corpus / arguments.target
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(arguments.target)):
        (folder / f"seed-{number:04}").write_bytes(seed)
        # What has to be compiled is compiled here, where no clock runs.
        TARGETS[arguments.target](seed)
    options = [
        f"-max_total_time={round(60 * arguments.minutes)}",
        f"-max_len={MAX_INPUT_BYTES[arguments.target]}",
        f"-artifact_prefix={arguments.corpus}/{arguments.target}-",
        "-timeout=30",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(folder), *options], TARGETS[arguments.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
