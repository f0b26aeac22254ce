"""No picture that is evaluated on is trained on: the real images beside the project, by their decoded pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pilc_stream.training.data import images_below

Size = tuple[int, int]


def digest(image: Image.Image) -> bytes:
    return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).digest()


def evaluated(folder: Path) -> Iterator[tuple[str, io.BytesIO]]:
    """Every file below the folder and every image of its Parquet files: (name, bytes)."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".parquet":
            for number, value in enumerate(pq.read_table(path, columns=["image"]).column(0)):
                yield f"{path.name} {number}", io.BytesIO(value.as_py())
        else:
            yield path.relative_to(folder).as_posix(), io.BytesIO(path.read_bytes())


def in_both(evaluation: Path, training: Path) -> tuple[list[str], int]:
    """The pictures of `evaluation` that are in `training` too, and how many were compared: those of a size that a
    training picture has."""
    trained: dict[Size, set[bytes]] = {}
    for _, pixels in images_below(training):
        size = (pixels.shape[1], pixels.shape[0])
        trained.setdefault(size, set()).add(hashlib.sha256(pixels.tobytes()).digest())
    found, compared = [], 0
    for name, data in evaluated(evaluation):
        try:
            image = Image.open(data)
            if image.size not in trained:
                continue
            same = digest(image) in trained[image.size]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # Files that are no picture, some of them damaged on purpose.
        compared += 1
        if same:
            found.append(name)
    return found, compared


@pytest.mark.filterwarnings("ignore:.*:UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_no_evaluation_picture_is_a_training_picture(shared_data: Path) -> None:
    found, compared = in_both(shared_data / "eval", shared_data / "train")
    assert found == []
    # The sets of small images alone are thousands.
    assert compared > 1000


def test_a_picture_in_both_is_found_whatever_its_file_format(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (2, 9, 7, 3), np.uint8)
    for folder in ("eval", "train"):
        (tmp_path / folder).mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "train" / "a.png")
    Image.fromarray(pixels[0]).save(tmp_path / "eval" / "b.bmp")
    Image.fromarray(pixels[1]).save(tmp_path / "eval" / "c.png")
    (tmp_path / "eval" / "list.csv").write_text("no picture")
    assert in_both(tmp_path / "eval", tmp_path / "train") == (["b.bmp"], 2)
