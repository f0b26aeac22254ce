"""Every backend that this machine can run, by name: the one list over which equivalence is tested."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from pilc_stream.backends import Engine
from pilc_stream.backends.cpu import CpuEngine
from pilc_stream.backends.machine import host_has_byte_dots, host_width
from pilc_stream.backends.pilc import PilcEngine
from pilc_stream.backends.pilc.cpu import PilcCpuEngine
from pilc_stream.backends.pilc.reference import PilcReferenceEngine
from pilc_stream.backends.reference import ReferenceEngine

ENGINES: dict[str, Callable[[], Engine]] = {
    "reference": ReferenceEngine,
    "cpu": CpuEngine,
    "cpu, 2 threads": lambda: CpuEngine(threads=2),
    **{f"cpu, width {width}": lambda w=width: CpuEngine(width=w) for width in (1, 4, 8, 16) if width < host_width()},
    **({"cpu, pairs": lambda: CpuEngine(byte_dots=False)} if host_has_byte_dots(host_width()) else {}),
}

every_engine = pytest.mark.parametrize("engine_name", list(ENGINES))
"""Runs a test once per backend; it gets the engine from `engine`."""


@cache
def engine(name: str) -> Engine:
    """An engine, kept so that a model is compiled once."""
    return ENGINES[name]()


PILC_ENGINES: dict[str, Callable[[], PilcEngine]] = {
    "reference": PilcReferenceEngine,
    "cpu": PilcCpuEngine,
    "cpu, 2 threads": lambda: PilcCpuEngine(threads=2),
}

every_pilc_engine = pytest.mark.parametrize("engine_name", list(PILC_ENGINES))
"""The same for the codec `pilc`; the engine comes from `pilc_engine`."""


@cache
def pilc_engine(name: str) -> PilcEngine:
    """An engine of the codec `pilc`, kept."""
    return PILC_ENGINES[name]()
