"""What the package says of itself was measured: records are whole, and README and report are made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pilc_stream.models.shipped import wave_preset_names
from pilc_stream.reports.files import NAMES, json_text
from pilc_stream.reports.markdown import whole_report
from pilc_stream.reports.plot import DESCRIBED, digest_of
from pilc_stream.reports.records import KINDS, observations, recorded
from pilc_stream.reports.report import Report
from pilc_stream.reports.tables import MEASURED, TABLES, recorded_report, with_tables

ROOT = Path(__file__).resolve().parents[2]
WRITE = "run: python -m pilc_stream.reports.tables README.md"


@pytest.fixture(scope="module")
def report() -> Report:
    return recorded_report()


def test_recorded_runs_name_their_machine_and_command() -> None:
    runs = [run for record in recorded() for run in record.get("runs", [record])]
    assert runs
    for run in runs:
        assert {"cpu", "cores", "date", "command", "versions"} <= run["machine"].keys()
        assert run["machine"]["command"].startswith(tuple(f"pilc {kind} " for kind in KINDS))


def test_the_same_model_gives_the_same_bytes_on_every_machine() -> None:
    sizes: dict[tuple[str, ...], set[int]] = {}
    for observed in (each for record in recorded() for each in observations(record)):
        figures = observed.figures
        key = observed.set_name, str(figures.images), figures.key.codec, figures.key.version
        sizes.setdefault(key, set()).add(figures.payload_bytes)
    assert sizes
    assert {key: found for key, found in sizes.items() if len(found) > 1} == {}


def test_every_shipped_profile_is_recorded_on_every_set(report: Report) -> None:
    assert report.sets, "pilc frontier DATA --record pilc_stream/reports/measured"
    for each in report.sets:
        missing = set(wave_preset_names()) - set(each.bpsp)
        assert not missing, f"{each.name}: pilc frontier DATA --record pilc_stream/reports/measured"


def test_the_readme_shows_the_recorded_runs(report: Report) -> None:
    text = (ROOT / "README.md").read_text()
    assert with_tables(text, report) == text, WRITE
    for name in ("frontier-costs", "frontier-rates", "frontier-speeds"):
        assert name in TABLES
        assert f"<!-- table: {name} -->\n" in text
    assert f"({(MEASURED / NAMES[2]).relative_to(ROOT)})" in text


def test_tables_are_written_anew_and_the_rest_stays(report: Report) -> None:
    text = "before\n<!-- table: frontier-costs -->\nold\n<!-- end of table -->\nafter\n"
    written = with_tables(text, report)
    assert written.startswith("before\n<!-- table: frontier-costs -->\n| profile |")
    assert written.endswith("<!-- end of table -->\nafter\n")
    assert "old" not in written
    assert with_tables(written, report) == written


def test_the_recorded_report_is_that_of_the_recorded_runs(report: Report) -> None:
    assert (MEASURED / NAMES[0]).read_text() == whole_report(report), WRITE
    assert (MEASURED / NAMES[1]).read_text() == json_text(report), WRITE


def test_the_recorded_plot_shows_the_recorded_figures(report: Report) -> None:
    described = DESCRIBED + digest_of(report)
    with Image.open(MEASURED / NAMES[2]) as picture:
        assert picture.text["Description"] == described, WRITE  # type: ignore[attr-defined]
    assert described in (MEASURED / NAMES[3]).read_text(), WRITE
