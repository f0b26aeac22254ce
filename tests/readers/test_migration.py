"""The guide for those who come from other loaders: what it says to write instead does run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_sets import Made, make_set

import pilc_stream
from pilc_stream.readers.dataset import Sample

GUIDE = Path(pilc_stream.__file__).parent / "readers" / "MIGRATION.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_set(str(tmp_path_factory.mktemp("migration") / "set"), [5, 4], shape=(20, 30, 3))


def after(title: str, made: Made, cache: Path = Path()) -> dict[str, Any]:
    """What the code has defined that stands under "after" in a section, on a small data set and without workers."""
    section = GUIDE.read_text().split(f"## From {title}\n")[1].split("\n## ")[0]
    [block] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    code = re.sub(r"\A.*?# after[^\n]*\n", "", block, flags=re.DOTALL)
    changes = {
        '"dataset/': f'"{made.url}/',
        '"dataset"': repr(made.url),
        '"s3://bucket/dataset"': repr(made.url),
        '"/tmp/cache"': repr(str(cache)),
        "workers=8": "workers=0",
        "< 90": "< 2",
    }
    for old, new in changes.items():
        code = code.replace(old, new)
    names: dict[str, Any] = {"transform": None}
    exec(compile(code, title, "exec"), names)
    return names


def test_from_image_folder(made: Made) -> None:
    pytest.importorskip("torch")
    names = after("ImageFolder", made)
    assert names["loader"].epoch == 2
    assert names["batch"]["image"].shape == (9, 3, 224, 224)
    assert names["batch"]["key"][0].split("/")[0].startswith("class-")


def test_from_web_dataset(made: Made) -> None:
    pytest.importorskip("torch")
    [batch] = after("WebDataset", made)["loader"]
    assert sorted(batch["key"]) == sorted(record.key for record in made.records)


def test_from_mosaic_streaming(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    names = after("MosaicML Streaming", made, tmp_path / "cache")
    [batch] = names["loader"]
    assert len(batch["key"]) == 9
    assert names["ds"].cache.used_bytes > 0


def test_from_hugging_face(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *args, **kwargs: load(*args, cache_dir=str(tmp_path), **kwargs)
    )
    names = after("Hugging Face datasets", made)
    assert names["data"][4]["image"].permute(1, 2, 0).tolist() == made.images[4].tolist()


def test_map_style_items_are_what_the_guide_says(made: Made) -> None:
    sample = pilc_stream.open(made.url)[3]
    assert isinstance(sample, Sample)
    assert (sample.key, sample.pixels.shape, sample.columns["label"]) == (made.records[3].key, (20, 30, 3), 0)


@pytest.mark.slow
def test_from_ray_data(made: Made) -> None:
    pytest.importorskip("ray")
    from workers.session import ray_session

    with ray_session(None, 1):
        assert after("Ray Data", made)["data"].count() == 9
