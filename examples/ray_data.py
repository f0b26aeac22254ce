"""Read a data set with Ray Data, in tasks on a local Ray, and take it as torch batches.

Usage:
    python examples/ray_data.py                             # of the bundled pictures
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
from compress_folder import PICTURES, compress

from pilc_stream.readers.ray import read_pilc
from workers.session import ray_session

EDGE = 64


def corner(row: dict[str, Any]) -> dict[str, Any]:
    """The upper left corner of a picture in colour, so that all have one shape."""
    pixels = row["image"][:EDGE, :EDGE]
    return {"image": pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        dataset = str(Path(temporary) / "dataset")
        compress(str(PICTURES), dataset)
        # A Ray of this program's own; `ray.init(address="auto")` joins one that runs.
        with ray_session(None, 2):
            ray.data.DataContext.get_current().enable_progress_bars = False
            batches = read_pilc(dataset).map(corner).iter_torch_batches(batch_size=3)
            shapes = [tuple(batch["image"].shape) for batch in batches]
    print(f"{sum(shape[0] for shape in shapes)} pictures in batches of shape {', '.join(map(str, shapes))}")


if __name__ == "__main__":
    main()
