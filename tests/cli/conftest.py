"""The command line in this process, and folders of small images for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from pilc_stream.cli import cli

Photo = Callable[..., npt.NDArray[Any]]
FileOf = Callable[..., bytes]
Pilc = Callable[..., Result]


@pytest.fixture
def pilc(monkeypatch: pytest.MonkeyPatch) -> Pilc:
    """Runs `pilc` with arguments, free of what the environment says."""
    for name in ("PILC_DEBUG", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object, **options: Any) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="pilc", **options)

    return run


@pytest.fixture
def photos(tmp_path: Path, photo_like: Photo, file_of: FileOf) -> Path:
    """A folder of six images: four BMP that the codec `raw` makes a little smaller, a grey PNG, a JPEG in a folder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for index in range(4):
        (folder / f"{index}.bmp").write_bytes(file_of(photo_like(17, 25, seed=index), "BMP"))
    (folder / "grey.png").write_bytes(file_of(photo_like(30, 20, None), "PNG"))
    (folder / "more" / "photo.jpg").write_bytes(file_of(photo_like(40, 40), "JPEG"))
    return folder


@pytest.fixture
def dataset(tmp_path: Path, photos: Path, pilc: Pilc) -> Path:
    """The data set of `photos`, made by the command."""
    result = pilc("compress", photos, tmp_path / "dataset", "--profile", "raw", "--workers", "0", "--shard-size", "3kB")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "dataset"
