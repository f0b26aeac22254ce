"""Fuzz a target with atheris, guided by coverage: ``python tests/fuzz/fuzz.py sealed --minutes 30`` (extra `fuzz`).

A finding ends the run with a traceback and leaves its input beside the corpus. A run ends well after so many
executions or minutes of CPU time, whichever comes first; ``--record FILE`` then adds its figures to the list in that
JSON file. Targets are those of `fuzz_targets.py`; `--corpus` keeps what was found between runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

# What pytest finds by its `pythonpath` setting, and the project itself.
sys.path += [str(Path(__file__).resolve().parents[1] / "codecs"), str(Path(__file__).resolve().parents[2])]

EXECUTIONS = 10_000_000
"""Enough for one run."""

ARITHMETIC = ("pilc_stream.arith.fixed", "pilc_stream.backends.lossy.network")
"""Not instrumented: nothing there branches on the input, and Atheris never frees the numbers that it sees compared."""

_READY = "fuzz: seeds executed after"
_FIGURES = {
    "executions": r"stat::number_of_executed_units:\s*(\d+)",
    "coverage": r" cov: (\d+) ",
    "features": r" ft: (\d+) ",
    "corpus": r" corp: (\d+)/",
    "seed_cpu_seconds": _READY + r" (\d+) s",
}


def main() -> None:
    """Fuzz; with ``--record`` in a child process, whose figures are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", choices=("lossy", "manifest", "payload", "sealed", "shard"))
    parser.add_argument("--minutes", type=float, default=30, help="of CPU time")
    parser.add_argument("--executions", type=int, default=EXECUTIONS)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz-corpus"))
    parser.add_argument("--record", type=Path, help="keep the figures of a run without a finding in this file")
    arguments = parser.parse_args()
    if arguments.record:
        sys.exit(record(arguments))
    fuzz(arguments)


def fuzz(arguments: argparse.Namespace) -> None:
    """Write the seeds, then fuzz; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pilc_stream"], exclude=list(ARITHMETIC), enable_loader_override=False):
        from fuzz_targets import LIMITS, TARGETS, seeds

    target, limits = TARGETS[arguments.target], LIMITS[arguments.target]
    folder = arguments.corpus / arguments.target
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(arguments.target)):
        (folder / f"seed-{number:04}").write_bytes(seed)
        # What has to be compiled is compiled here, where no clock runs.
        target(seed)
    print(f"{_READY} {time.process_time():.0f} s of CPU time", file=sys.stderr, flush=True)
    last = time.process_time() + 60 * arguments.minutes

    def until_the_last_minute(data: bytes) -> None:
        target(data)
        if time.process_time() > last:
            # libFuzzer's way to be asked to end; it counts wall time itself.
            os.kill(os.getpid(), signal.SIGUSR1)

    options = [
        f"-runs={arguments.executions}",
        f"-max_len={limits.input_bytes}",
        f"-artifact_prefix={arguments.corpus}/{arguments.target}-",
        f"-timeout={limits.seconds}",
        f"-rss_limit_mb={limits.memory_mb}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(folder), *options], until_the_last_minute)
    atheris.Fuzz()


def record(arguments: argparse.Namespace) -> int:
    """Run the same command without ``--record``, and put its figures into the file; the run's exit status."""
    from pilc_stream.reports.machine import machine_facts

    own = [part for part in sys.argv[1:] if not part.startswith("--record") and part != str(arguments.record)]
    figures: dict[str, Any] = {"target": arguments.target}
    started = time.monotonic()
    with subprocess.Popen([sys.executable, __file__, *own], stderr=subprocess.PIPE, text=True, errors="replace") as run:
        assert run.stderr is not None
        for line in run.stderr:
            sys.stderr.write(line)
            for name, pattern in _FIGURES.items():
                if found := re.search(pattern, line):
                    figures[name] = int(found[1])
    if run.returncode or "executions" not in figures:
        return run.returncode or 1
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures["cpu_seconds"] = round(used.ru_utime + used.ru_stime) - figures["seed_cpu_seconds"]
    figures["wall_seconds"] = round(time.monotonic() - started)
    figures["peak_rss_mb"] = used.ru_maxrss // 1024
    machine = machine_facts() | {"command": " ".join(["python", "tests/fuzz/fuzz.py", *own])}
    machine["versions"]["atheris"] = metadata.version("atheris")
    figures["machine"] = machine
    runs = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
    arguments.record.write_text(json.dumps([*runs, figures], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    main()
