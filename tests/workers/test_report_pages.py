from __future__ import annotations

import io
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin
from small_jobs import fill

from pilc_stream.errors import StorageError
from pilc_stream.records.quarantine import Quarantined, quarantine
from pilc_stream.storage import Store
from workers.job import run_job
from workers.occupancy import Slots
from workers.pages import Section, html, markdown, write_pages
from workers.settings import JobSettings
from workers.svg import bars, line

SettingsOf = Callable[..., JobSettings]


class Tags(HTMLParser):
    """Which tags a page has, and whether each that opens closes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def store(tmp_path: Path, source: Path, settings_of: SettingsOf) -> Store:
    """A data set of six images, two of them broken."""
    fill(source, {"001.bmp": b"BM, but no picture", "004 <b>|*.bmp": b"BM, but no picture"})
    run_job(settings_of(source))
    return Store.open(str(tmp_path / "dataset"))


def test_a_job_leaves_its_report(store: Store) -> None:
    page, text = store.read("_pilc/report.html").decode(), store.read("_pilc/report.md").decode()
    for title in ("Totals", "Ratios of the images that were coded", "Stages of the last run", "Failures and fallbacks"):
        assert f"## {title}" in text
        assert title in page
    assert "| images | 7 |" in text
    assert "| failed, kept as they came | 2 |" in text
    # One reason, for both: figures and keys are not what differs.
    assert any(row.startswith("| decode |") and row.endswith("| 2 |") for row in text.splitlines())
    assert Tags(page).seen.count("svg") >= 3


def test_one_tiny_image_with_much_metadata_makes_no_long_report(
    tmp_path: Path, source: Path, settings_of: SettingsOf
) -> None:
    words = PngImagePlugin.PngInfo()
    words.add_text("Title", "a pixel " * 500)
    picture = io.BytesIO()
    Image.new("L", (1, 1)).save(picture, "PNG", pnginfo=words)
    fill(source, {"tiny.png": picture.getvalue()})
    run_job(settings_of(source))
    lines = (tmp_path / "dataset" / "_pilc" / "report.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| 16 and more | up to 0.50 | 1 |")]
    assert len(lines) < 150


def test_nothing_from_data_becomes_markup(store: Store) -> None:
    quarantine(store, Quarantined(9, 3, "<script>alert(1)</script> | `x`", "<i>", "*"))
    write_pages(store, slots=Slots(8, 2, 1, 2), seconds=4.0, stages={"read": 1.0, "code": 2.0})
    page, text = store.read("_pilc/report.html").decode(), store.read("_pilc/report.md").decode()
    assert {"script", "i", "b"}.isdisjoint(Tags(page).seen)
    assert "<script>alert(1)</script> | `x`" in Tags(page).texts
    (row,) = [line for line in text.splitlines() if "alert" in line]
    assert row.replace("\\|", "").count("|") == 5
    assert "Stages of the last run: code-bound" in text


def test_bars_and_lines_are_drawn_to_scale() -> None:
    assert bars([("a", 1.0), ("b", 2.0)], "images").count("<rect") == 2
    assert "height='168.0'" in bars([("a", 1.0), ("b", 2.0)], "images")
    assert "height='84.0'" in bars([("a", 1.0), ("b", 2.0)], "images")
    assert "64.0,180.0 632.0,12.0" in line([(0.0, 0.0), (5.0, 3.0)], "MB/s", "s")
    assert "&lt;x&gt;" in bars([("<x>", 1.0)], "")
    assert bars([], "")
    assert line([], "", "")


def test_markdown_draws_the_column_it_is_told_to() -> None:
    text = markdown("memory://x", [Section("T", ("a",), (("1",), ("2",)), bar=(1.0, 3.0))])
    assert f"| 1 | {'█' * 10} |" in text
    assert f"| 2 | {'█' * 30} |" in text
    assert "memory://x" in html("memory://x", [])


def test_a_job_whose_report_cannot_be_written_is_a_finished_job(
    tmp_path: Path, source: Path, settings_of: SettingsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_jobs import Remembering

    put = Store.put

    def refused(store: Store, path: str, data: bytes) -> None:
        if "report" in path:
            raise StorageError("the disk is full.")
        put(store, path, data)

    monkeypatch.setattr(Store, "put", refused)
    reporter = Remembering()
    assert run_job(settings_of(source), reporter).totals.images == 6
    assert any("report of the job could not be written: the disk is full" in text for text in reporter.sentences)
