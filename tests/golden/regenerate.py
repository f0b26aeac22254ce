"""Writes the golden payloads: ``python tests/golden/regenerate.py``.

A file that is there and would change is left alone and reported, because released payloads must decode for ever: new
cases get new names, a new format version a new folder. ``--overwrite`` is for what was never released, ``--only fast``
for the payloads of one model.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What pytest finds by its `pythonpath` setting.
sys.path.append(str(Path(__file__).resolve().parents[1] / "codecs"))

from families import FAMILIES, family_files, lossy_jobs
from modes import MODE_CASES, ModeCase
from pictures import Image, checker, scene, sixteen_bits
from small_lossy import small_lossy_model
from small_model import small_model
from small_pilc import small_pilc_model

from pilc_stream.backends import Engine
from pilc_stream.backends.lossy.reference import LossyReferenceEngine
from pilc_stream.backends.pilc import PilcEngine
from pilc_stream.backends.pilc.reference import PilcReferenceEngine
from pilc_stream.backends.reference import ReferenceEngine
from pilc_stream.codecs.lossy import LossyCodec
from pilc_stream.codecs.pilc import PilcCodec
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.views import views_of
from pilc_stream.codecs.wave import WaveCodec
from pilc_stream.models.lossy import LossyModel, load_lossy_model
from pilc_stream.models.model import WaveModel, load_model
from pilc_stream.models.pilc import PilcModel, load_pilc_model
from pilc_stream.models.shipped import preset_bytes, wave_preset_names
from pilc_stream.records.payload import Header, pack_payload

FOLDER = Path(__file__).resolve().parent / "v1"

MODELS: dict[str, Callable[[], WaveModel]] = {
    "small": cache(small_model),
    **{name: cache(lambda name=name: load_model(preset_bytes(name))) for name in wave_preset_names()},
}
PILC_MODELS: dict[str, Callable[[], PilcModel]] = {
    "small-pilc": cache(lambda: small_pilc()),
    "pilc": cache(lambda: load_pilc_model(preset_bytes("pilc"))),
}


def small_pilc() -> PilcModel:
    """The small model of the codec `pilc`, from its golden file once that is there: its formula draws at random."""
    path = FOLDER / "small-pilc.safetensors"
    return load_pilc_model(path.read_bytes()) if path.exists() else small_pilc_model()


@dataclass(frozen=True)
class Case:
    """An image and how it is coded; with `lanes_log2`, by that many lanes instead of the codec's choice, and with
    `views`, in a view of its own for each tile."""

    name: str
    pixels: Callable[[], Image]
    codec: str = "wave"
    tile_log2: int = 8
    lanes_log2: int | None = None
    extras: bytes = b""
    views: bool = False

    def encode(self, model: WaveModel, engine: Engine) -> bytes:
        """The payload."""
        if self.codec == "raw":
            return RawCodec().encode([self.pixels()], [self.extras])[0]
        if self.lanes_log2 is None:
            return WaveCodec(model, engine, self.tile_log2).encode([self.pixels()], [self.extras])[0]
        pixels = self.pixels()
        header = Header(
            "wave",
            *pixels.shape,
            8,
            False,
            model.short_digest,
            self.tile_log2,
            self.lanes_log2,
            self.extras,
            self.views,
        )
        tiles = [pixels[y : y + h, x : x + w] for y, x, h, w in header.tiling.tiles()]
        views = [7 * k % (48 if header.channels == 3 else 8) * self.views for k in range(1, len(tiles) + 1)]
        streams = engine.encode_tiles(model, views_of(tiles, views), [self.lanes_log2] * len(tiles))
        begins = [bytes((view,)) if self.views else b"" for view in views]
        return pack_payload(header, [begin + stream for begin, stream in zip(begins, streams, strict=True)])


WAVE_CASES = [
    Case("grey", lambda: scene(13, 17, None)),
    Case("grey-three-axes", lambda: scene(9, 8, 1)),
    Case("colour", lambda: scene(21, 19, 3)),
    Case("row", lambda: scene(1, 40, 3)),
    Case("column", lambda: scene(40, 1, 3)),
    Case("pixel", lambda: scene(1, 1, 3)),
    Case("flat", lambda: np.full((33, 31, 3), 255, np.uint8)),
    Case("checker", lambda: checker(24, 25)),
    Case("extras", lambda: scene(12, 12, 3), extras=b"\x00\xff extras of a few bytes"),
    Case("tiles", lambda: scene(35, 50, 3), tile_log2=4),
    Case("tiles-grey", lambda: scene(40, 33, None), tile_log2=5),
    Case("lanes", lambda: scene(96, 80, 3)),
    Case("many-lanes", lambda: scene(20, 31, 3), tile_log2=4, lanes_log2=5),
    Case("views", lambda: scene(90, 110, 3), tile_log2=4, lanes_log2=0, views=True),
    Case("views-grey", lambda: scene(35, 50, 1), tile_log2=4, lanes_log2=1, views=True),
]
RAW_CASES = [
    Case("raw-grey", lambda: scene(3, 5, None), codec="raw"),
    Case("raw-rgba", lambda: scene(4, 3, 4), codec="raw"),
    Case("raw-16-bits", lambda: sixteen_bits(4, 6), codec="raw", extras=b"gamma"),
]


LOSSY = "small-lossy"
LOSSY_CASES = ("grey", "colour", "row", "flat", "tiles", "lanes")
LOSSY_QUALITY = 60

MODES = "modes"
"""What `--only` calls the payloads of the codecs without a profile."""

CASES_OF_OTHERS = ("grey", "colour", "tiles")
"""Cases of profiles other than `small` and `fast`, which differ in their networks alone."""


def wave_cases_of(model: str) -> list[Case]:
    """The cases that there are golden payloads of."""
    return [case for case in WAVE_CASES if model in ("small", "fast") or case.name in CASES_OF_OTHERS]


def pilc_cases_of(model: str) -> list[Case]:
    """The cases that there are golden payloads of, of a model of the codec `pilc`."""
    return [
        case for case in WAVE_CASES if case.lanes_log2 is None and (model != "pilc" or case.name in CASES_OF_OTHERS)
    ]


def encode_by_pilc(model: PilcModel, engine: PilcEngine, case: Case) -> bytes:
    """The payload of a case by the codec `pilc`."""
    return PilcCodec(model, engine, case.tile_log2).encode([case.pixels()], [case.extras])[0]


def small_lossy() -> LossyModel:
    """The small model of the codec `lossy`, from its golden file once that is there."""
    path = FOLDER / f"{LOSSY}.safetensors"
    return load_lossy_model(path.read_bytes() if path.exists() else small_lossy_model(profile=LOSSY).file_bytes)


def lossy_payload(name: str) -> bytes:
    """The golden payload of a case once it is there: its bytes depend on the rounding of float32 where it was made."""
    path = FOLDER / f"{LOSSY}-{name}.pilc"
    if path.exists():
        return path.read_bytes()
    case = next(case for case in WAVE_CASES if case.name == name)
    codec = LossyCodec(small_lossy(), LossyReferenceEngine(), LOSSY_QUALITY, tile_log2=case.tile_log2)
    return codec.encode([case.pixels()])[0]


def lossy_latents(name: str) -> NDArray[np.int32]:
    """All latents of a golden payload, one tile after the other."""
    found = LossyReferenceEngine().decode_latents(small_lossy(), lossy_jobs(lossy_payload(name)))
    return np.concatenate([latents.reshape(-1) for _, latents in found])


def files_of(only: str | None) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Every golden file, or those of one model: its name, and what makes its content."""
    engine = ReferenceEngine()
    for name, model in MODELS.items():
        if only in (None, name):
            for case in wave_cases_of(name):
                yield f"{name}-{case.name}.pilc", lambda case=case, model=model: case.encode(model(), engine)
    slow = PilcReferenceEngine()
    for name, of_pilc in PILC_MODELS.items():
        if only in (None, name):
            for case in pilc_cases_of(name):
                yield f"{name}-{case.name}.pilc", lambda case=case, model=of_pilc: encode_by_pilc(model(), slow, case)
    if only in (None, LOSSY):
        yield f"{LOSSY}.safetensors", lambda: small_lossy().file_bytes
        for name in LOSSY_CASES:
            yield f"{LOSSY}-{name}.pilc", lambda name=name: lossy_payload(name)
            yield f"{LOSSY}-{name}-latents.npy", lambda name=name: npy_bytes(lossy_latents(name))
    yield from family_files(FOLDER, only, npy_bytes)
    if only in (None, MODES):
        for mode in MODE_CASES:
            yield f"{mode.name}.pilc", lambda mode=mode: mode_payload(mode, engine)
            yield f"{mode.name}.npy", lambda mode=mode: npy_bytes(mode.pixels())
    if only in (None, "small-pilc"):
        yield "small-pilc.safetensors", lambda: small_pilc().file_bytes
    if only in (None, "small"):
        yield "small.safetensors", lambda: small_model().file_bytes
        for case in RAW_CASES:
            yield f"{case.name}.pilc", lambda case=case: case.encode(small_model(), engine)
        for case in (*WAVE_CASES, *RAW_CASES):
            yield f"{case.name}.npy", lambda case=case: npy_bytes(case.pixels())


def mode_payload(case: ModeCase, engine: Engine) -> bytes:
    """The payload of a case; of one whose bytes a library decides, the golden one once it is there."""
    path = FOLDER / f"{case.name}.pilc"
    return path.read_bytes() if case.library and path.exists() else case.encode(engine)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as an .npy file."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def main() -> int:
    """Write what is missing; 1 where a file is there and differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overwrite", action="store_true", help="replace files that differ (never released ones only)")
    names = sorted([*MODELS, *PILC_MODELS, *FAMILIES, LOSSY, MODES])
    parser.add_argument("--only", choices=names, help=f"payloads of this model only; {MODES}: those without a model")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    differing = []
    for name, make in files_of(arguments.only):
        path, content = FOLDER / name, make()
        if not path.exists() or (arguments.overwrite and path.read_bytes() != content):
            path.write_bytes(content)
            print(f"wrote {path.relative_to(FOLDER.parent)}")
        elif path.read_bytes() != content:
            differing.append(name)
    for name in differing:
        print(f"{name} is there and differs from what this code writes; it was left alone", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
