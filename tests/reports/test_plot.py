"""The plot shows every figure of the report, and its files say which figures they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from pilc_stream.errors import UsageError
from pilc_stream.reports import plot
from pilc_stream.reports.files import NAMES, write_report
from pilc_stream.reports.plot import DESCRIBED, digest_of, draw, rows_of, visible_rates
from pilc_stream.reports.report import Cost, Report, build_report

MakeRecord = Callable[..., dict[str, Any]]
CODECS = {"PNG": (5.0, 200.0), "JPEG XL e7": (3.0, 10.0), "JPEG XL e9": (2.99, 9.0), "small": (3.1, 30.0)}


@pytest.fixture
def report(costs: Sequence[Cost], make_record: MakeRecord) -> Report:
    here = [make_record({**CODECS, "large": (2.8, 1.0)}), make_record(CODECS, "tiny", images=1)]
    there = make_record({**CODECS, "large": (2.8, 500.0)}, device="cuda", gpus=["Graphics 9"], cpu="Abacus 2")
    return build_report(costs, here, [there])


def texts_of(path: Path) -> set[str]:
    return {"".join(element.itertext()).strip() for element in ElementTree.parse(path).iter() if "text" in element.tag}


def test_profiles_are_a_line_and_peers_levels_and_points(report: Report) -> None:
    photos, tiny = rows_of(report)
    assert photos.title == "photos (10 images)"
    assert tiny.title == "tiny (1 image)"
    assert photos.levels == {"PNG": 5.0, "JPEG XL e7": 3.0, "JPEG XL e9": 2.99}
    assert photos.line == [("small", 1.903, 3.1), ("large", 60.0, 2.8)]
    assert photos.speeds == {
        "1 of 4 cores, Abacus 1": [("small", 30.0, 3.1), ("large", 1.0, 2.8)],
        "Graphics 9": [("small", 30.0, 3.1), ("large", 500.0, 2.8)],
    }
    assert set(photos.peer_speeds) == {"1 of 4 cores, Abacus 1", "1 of 4 cores, Abacus 2"}
    assert photos.peer_speeds["1 of 4 cores, Abacus 1"][0] == ("PNG", 200.0, 5.0)


def test_a_rate_far_above_does_not_press_the_others_together() -> None:
    assert visible_rates([5.0, 3.0, 2.9, 3.1]) == (2.9, 3.1)
    assert visible_rates([3.3, 3.0, 2.9, 3.1]) == (2.9, 3.3)
    assert visible_rates([3.0, 3.001, 3.05]) == (3.0, 3.05), "near, though farther than the others from each other"
    assert visible_rates([5.0, 3.0]) == (3.0, 5.0)
    assert visible_rates([3.0]) == (3.0, 3.0)


def test_the_files_are_pictures_that_name_every_codec_and_device(report: Report, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "out")
    assert [path.name for path in paths] == list(NAMES)
    with Image.open(tmp_path / "out" / "frontier.png") as picture:
        assert picture.width > 1000
        assert picture.text["Description"] == DESCRIBED + digest_of(report)  # type: ignore[attr-defined]
    svg = tmp_path / "out" / "frontier.svg"
    assert DESCRIBED + digest_of(report) in svg.read_text()
    texts = texts_of(svg)
    assert {"small  3.100", "large  2.800", "PNG  5.000 ↑", "JPEG XL e7", "photos (10 images)"} <= texts
    assert {"profiles on Graphics 9", "peers and their hull on 1 of 4 cores, Abacus 2"} <= texts


def test_the_same_figures_give_the_same_file(report: Report, tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    draw(report, [first])
    draw(report, [second])
    assert first.read_bytes() == second.read_bytes()


def test_other_figures_have_another_digest(report: Report, costs: Sequence[Cost], make_record: MakeRecord) -> None:
    other = build_report(costs, [make_record({**CODECS, "small": (3.1, 31.0)})], [])
    assert len({digest_of(report), digest_of(other), digest_of(build_report(costs, [], []))}) == 3


def test_a_report_without_figures_can_be_drawn(costs: Sequence[Cost], tmp_path: Path) -> None:
    draw(build_report(costs, [], []), [tmp_path / "none.png"])
    assert (tmp_path / "none.png").stat().st_size > 0


def test_without_the_library_the_extra_is_named(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'pilc-stream\[bench\]'"):
        draw(report, [tmp_path / "plot.png"])
