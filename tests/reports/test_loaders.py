"""The contest of loaders: what each has to answer, what is said of one that cannot run, and the real ones."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from pilc_stream.errors import UsageError, VerifyError
from pilc_stream.reports.loader_tables import loaders_table
from pilc_stream.reports.loaders import (
    Loader,
    LoaderFigures,
    LoaderReport,
    bench_loaders,
    loader_table,
    peer_loaders,
)
from pilc_stream.reports.machine import machine_facts
from pilc_stream.reports.sets import ImageSet


def image_set(count: int = 5, shape: tuple[int, ...] = (16, 12, 3)) -> ImageSet:
    random = np.random.default_rng(count)
    return ImageSet("noise", [random.integers(0, 256, shape, np.uint8) for _ in range(count)], 0)


def program(folder: Path, change: str = "") -> Loader:
    """A loader that reads the PNG files, one batch each, after `change`."""
    source = """
        import sys
        from pathlib import Path
        import numpy as np
        from PIL import Image
        from pilc_stream.reports.loader_peers import serve

        class Tensor:
            def __init__(self, path):
                self.array = np.array(Image.open(path)).transpose(2, 0, 1)

            def numpy(self):
                return self.array

        def batches():
            images = [[Tensor(path)] for path in sorted(Path(sys.argv[1]).glob("*/*.png"))]
            {change}
            return images

        sys.exit(serve(batches, ["pilc-stream"], 4321, int(sys.argv[4])))
    """
    path = folder / "program.py"
    path.write_text(textwrap.dedent(source).format(change=change))
    return Loader("simple", (sys.executable, str(path)))


def test_a_pass_is_whole_batches_for_each_worker_and_its_pixels_are_compared(tmp_path: Path) -> None:
    report = bench_loaders(image_set(), [program(tmp_path)], workers=1, rounds=2, pass_images=1)
    [figures] = report.loaders
    assert report.batch == 64
    assert report.samples % (8 * report.batch) == 0
    assert report.raw_bytes == report.samples * 16 * 12 * 3
    assert figures.stored_bytes == 4321
    assert len(figures.seconds) == 2
    assert figures.samples_per_s == pytest.approx(report.samples / np.median(figures.seconds), rel=1e-3)
    assert set(figures.versions) == {"pilc-stream"}
    assert "simple" in loader_table(report)


@pytest.mark.parametrize("change", ["images[-1] = images[0]", "images.pop()", "images[0][0].array[0, 0, 0] += 1"])
def test_a_loader_that_gives_other_pixels_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(VerifyError, match="simple does not give the pixels back"):
        bench_loaders(image_set(), [program(tmp_path, change)], workers=1, rounds=1, pass_images=1)


def test_a_loader_that_cannot_run_is_skipped_with_its_reason() -> None:
    loader = Loader("broken", (sys.executable, "-c", "raise ImportError('no such library')"))
    report = bench_loaders(image_set(), [loader], workers=1, rounds=1, pass_images=1)
    assert report.loaders[0].skipped == "ImportError: no such library"
    assert "broken           skipped: ImportError: no such library" in loader_table(report)


def test_a_record_becomes_a_table(tmp_path: Path) -> None:
    record = tmp_path / "loaders.json"
    assert loaders_table(record) == "Not recorded on any machine yet.\n"
    quick = LoaderFigures(loader="quick", stored_bytes=250, samples_per_s=1234.5)
    absent = LoaderFigures(loader="absent", skipped="ImportError: no such library")
    reports = [
        LoaderReport(images=name, samples=9, raw_bytes=1000, batch=3, workers=2, rounds=1, loaders=(quick, absent))
        for name in ("small", "large")
    ]
    document = {"machine": machine_facts(), "loaders": [report.to_json() for report in reports]}
    record.write_text(json.dumps(document))
    lines = loaders_table(record).splitlines()
    assert lines[0].startswith("On 2 of ")
    assert lines[2].startswith("| loader | small (batches of 3), images/s, share of raw bytes | large (batches of 3)")
    assert lines[4:] == ["| `quick` | 1,234, 25.0% | 1,234, 25.0% |", "| `absent` |  |  |"]


def test_a_set_without_images_is_refused() -> None:
    with pytest.raises(UsageError, match="no image was found"):
        bench_loaders(ImageSet("none", [], 3), [], workers=1, rounds=1, pass_images=1)


@pytest.mark.slow
def test_real_loaders_read_grey_and_coloured_images_of_several_sizes() -> None:
    colour, grey = image_set(3, (40, 30, 3)), image_set(2, (20, 50))
    mixed = ImageSet("mixed", [*colour.images, *grey.images], 0)
    own = Loader("pilc-fast", (sys.executable, "-m", "pilc_stream.cli.own_loader", "fast"))
    report = bench_loaders(mixed, [own, *peer_loaders(sys.executable)], workers=2, rounds=1, pass_images=1)
    found = {figures.loader: figures for figures in report.loaders}
    assert not found["pilc-fast"].skipped
    assert set(found) == {"pilc-fast", "imagefolder-png", "webdataset-png", "webdataset-webp", "streaming-png"}
    for name, library in {"webdataset-png": "webdataset", "webdataset-webp": "webdataset"}.items():
        assert bool(found[name].skipped) == (importlib.util.find_spec(library) is None), found[name].skipped
    for figures in report.loaders:
        assert figures.skipped or figures.samples_per_s > 0
