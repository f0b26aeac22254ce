"""Small sets of images, and records made up for the shipped profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pilc_stream.reports.report import Cost

MakeRecord = Callable[..., dict[str, Any]]


@pytest.fixture
def costs() -> list[Cost]:
    """Two profiles: `small`, with the model "s", and `large`, with the model "l", which is slower to encode."""
    return [
        Cost("small", "s", 2000, {"network": 1900, "coder": 3}, {"network": 1900, "coder": 3}),
        Cost("large", "l", 64000, {"network": 60000, "search": 9000}, {"network": 60000}),
    ]


@pytest.fixture
def make_record() -> MakeRecord:
    """Makes a record from codecs with (bits, MB/s out); further keywords are facts of the machine."""

    def make(
        codecs: dict[str, tuple[float, float]],
        set_name: str = "photos",
        images: int = 10,
        device: str = "cpu",
        models: tuple[tuple[str, str], ...] = (("small", "s"), ("large", "l")),
        **facts: Any,
    ) -> dict[str, Any]:
        run: dict[str, Any] = {"machine": _machine(**facts), "processes": 1, "profiles": [], "peers": []}
        for name, (bpsp, decode_mb_per_s) in codecs.items():
            figures = {
                "threads": 1,
                "images": images,
                "pixels": 1000 * images,
                "raw_bytes": 3000 * images,
                "payload_bytes": round(375 * images * bpsp),
                "bpsp": bpsp,
                "encode_mb_per_s": decode_mb_per_s / 2,
                "decode_mb_per_s": decode_mb_per_s,
                "rounds": 3,
            }
            if sha256 := dict(models).get(name):
                about = {"profile": name, "device": device, "model_sha256": sha256, "macs_per_pixel": {}}
                run["profiles"].append(figures | about)
            else:
                run["peers"].append(figures | {"peer": name, "device": "cpu", "settings": f"{name} 1.0"})
        return {"set": set_name, "left_out": 0, "sha256": "", "runs": [run]}

    return make


def _machine(**facts: Any) -> dict[str, Any]:
    return {
        "cpu": "Abacus 1",
        "gpus": [],
        "cores": 4,
        "system": "Linux x86_64",
        "python": "3.11.0",
        "versions": {"numpy": "2.0"},
        "date": "2026-01-02",
        "command": "pilc frontier DATA",
        **facts,
    }


@pytest.fixture
def sets_folder(tmp_path: Path) -> Path:
    """A folder of two sets: `ramps`, files in a folder, and `noise.parquet`; and a file that is neither."""
    random = np.random.default_rng(3)
    ramps = tmp_path / "sets" / "ramps"
    ramps.mkdir(parents=True)
    for i in range(3):
        ramp = np.add.outer(np.arange(20), np.arange(30) * i)[:, :, None].repeat(3, axis=2) % 256
        Image.fromarray(ramp.astype(np.uint8)).save(ramps / f"{i}.png")
    (tmp_path / "sets" / "notes.txt").write_text("no set")
    noise = []
    for _ in range(4):
        file = tmp_path / "noise.png"
        Image.fromarray(random.integers(0, 256, (9, 8), np.uint8)).save(file)
        noise.append(file.read_bytes())
    pq.write_table(pa.table({"image": noise}), tmp_path / "sets" / "noise.parquet")
    return tmp_path / "sets"
