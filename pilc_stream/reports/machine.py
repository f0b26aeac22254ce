"""Which machine a figure was measured on: recorded with every figure."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from pilc_stream._version import __version__

LIBRARIES = ("numpy", "numba", "llvmlite", "pillow", "pyarrow", "torch", "ray", "imagecodecs")


def machine_facts() -> dict[str, Any]:
    """CPU model and cores, GPUs, operating system, versions, date and command, as JSON values."""
    return {
        "cpu": _cpu_model(),
        "gpus": _gpus(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {"pilc-stream": __version__, **_versions()},
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["pilc", *sys.argv[1:]]),
    }


def machine_name(facts: Mapping[str, Any]) -> str:
    """The machine of some facts, of whatever date: its GPUs and its CPU."""
    return ", ".join([*facts.get("gpus", ()), facts["cpu"]])


def device_name(facts: Mapping[str, Any], device: str, threads: int) -> str:
    """The part of the machine that was measured: its GPU, or so many cores of its CPU."""
    if device == "cuda":
        return str(facts["gpus"][0])
    cores = f"{threads} of {facts['cores']} cores, {facts['cpu']}"
    return f"the reference on {cores}" if device == "reference" else cores


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.splitlines()


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor() or "unknown"
    named = {key.strip(): value.strip() for key, value in fields.items()}
    model = named.get("model name") or platform.processor() or "unknown"
    family, number = named.get("cpu family"), named.get("model")
    vector = "AVX-512" if "avx512bw" in named.get("flags", "") else "AVX2" if "avx2" in named.get("flags", "") else ""
    return ", ".join(part for part in (model, f"family {family} model {number}" if family else "", vector) if part)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
