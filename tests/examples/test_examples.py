"""Each example runs as it stands, and its pictures are what their list says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PICTURES = EXAMPLES / "pictures"


def run(name: str, *arguments: str) -> str:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_compress_folder() -> None:
    output = run("compress_folder.py")

    assert "8 images in 1 shards, 0 of them failed" in output
    files, payloads = (int(text.replace(",", "")) for text in re.findall(r"([\d,]+) bytes", output))
    assert files == sum(path.stat().st_size for path in PICTURES.glob("*.png"))
    assert payloads < files


def test_compress_folder_of_ones_own_and_read_it(tmp_path: Path) -> None:
    run("compress_folder.py", str(PICTURES), str(tmp_path / "dataset"))

    assert "8 images in 1 shards" in run("read_shards.py", str(tmp_path / "dataset"))


def test_read_shards() -> None:
    output = run("read_shards.py")

    assert "first: boulder.png, uint8 (256, 256, 3)" in output
    assert "the same pixels, True" in output
    assert "its upper left corner: (16, 16, 3)" in output
    assert f"all images: {7 * 256 * 256 * 3 + 256 * 256:,} bytes of pixels" in output
    assert "  chart.png: 256 x 256, codec " in output


def test_train_classifier() -> None:
    pytest.importorskip("torch")

    accuracy = re.search(r"accuracy ([\d.]+) on crops", run("train_classifier.py", "--epochs", "8"))

    # By chance it would be right once in eight times.
    assert accuracy is not None
    assert float(accuracy[1]) > 0.5


def test_hugging_face() -> None:
    pytest.importorskip("datasets")

    output = run("hugging_face.py")

    assert "8 pictures, features key, image, codec" in output
    assert "first: boulder.png, RGB of (256, 256)" in output
    assert "saved and opened: PILC, (256, 256)" in output


@pytest.mark.slow
def test_lightning_training() -> None:
    pytest.importorskip("pytorch_lightning")

    output = run("lightning_training.py")

    assert "stopped after 2 steps and 4 pictures" in output
    assert "went on to step 4: 8 pictures, each once: True" in output


@pytest.mark.slow
def test_ray_data() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("torch")

    output = run("ray_data.py")

    assert "8 pictures in batches of shape (3, 64, 64, 3), (3, 64, 64, 3), (2, 64, 64, 3)" in output


def test_zarr_images() -> None:
    pytest.importorskip("zarr")

    output = run("zarr_images.py")

    pixels, stored = (int(text.replace(",", "")) for text in re.findall(r"([\d,]+) bytes", output))
    assert stored < pixels
    assert "the same pixels: True" in output


def test_every_picture_has_its_origin_and_licence_listed() -> None:
    rows = re.findall(r"^\| `(.+?\.png)` \| (.+?) \| (.+?) \|", (PICTURES / "ORIGINS.md").read_text(), re.MULTILINE)

    assert sorted(name for name, _, _ in rows) == sorted(path.name for path in PICTURES.glob("*.png"))
    assert {licence for _, _, licence in rows} <= {"CC0 1.0", "public domain"}
    assert all(len(origin) > 10 for _, origin, _ in rows)


def test_the_pictures_are_small_and_of_both_kinds() -> None:
    paths = list(PICTURES.glob("*.png"))

    assert sum(path.stat().st_size for path in paths) < 900_000
    assert {Image.open(path).mode for path in paths} == {"L", "RGB"}


def test_the_list_of_examples_names_them_all() -> None:
    text = (EXAMPLES / "README.md").read_text()

    assert sorted(re.findall(r"python examples/(\w+\.py)", text)) == sorted(path.name for path in EXAMPLES.glob("*.py"))
