"""The report puts computation, rate and time of recorded and of fresh figures together, and invents none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes, wave_preset_names
from pilc_stream.reports.files import json_text
from pilc_stream.reports.markdown import (
    costs_table,
    rates_table,
    savings_table,
    speeds_table,
    standings_table,
    whole_report,
)
from pilc_stream.reports.report import FLOP_PER_MAC, Cost, Report, Timing, build_report, shipped_costs

MakeRecord = Callable[..., dict[str, Any]]
PEERS = {"PNG": (5.0, 200.0), "JPEG XL e7": (3.0, 10.0)}


def timing_of(report: Report, codec: str, device: str = "1 of 4 cores, Abacus 1") -> Timing:
    (timing,) = (each for each in report.sets[0].timings if (each.codec, each.device) == (codec, device))
    return timing


def cells(table: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return [rows[0], *rows[2:]]


def test_every_shipped_profile_is_counted_from_its_model() -> None:
    costs = shipped_costs()
    assert {cost.profile for cost in costs} == set(wave_preset_names())
    assert [cost.kmac("decode") for cost in costs] == sorted(cost.kmac("decode") for cost in costs)
    for cost in costs:
        model = load_model(preset_bytes(cost.profile))
        assert cost.parameters == model.spec.parameters()
        assert cost.model_sha256 == model.sha256
        assert cost.kmac("decode") == sum(model.spec.macs_per_pixel().values()) / 1000
        assert cost.kflop("encode") == 2 * cost.kmac("encode") > 0


def test_computation_is_split_by_part_and_direction(costs: Sequence[Cost]) -> None:
    heads, *rows = cells(costs_table(build_report(costs, [], [])))
    assert heads[3:6] == ["network, kMAC/pixel", "coder, kMAC/pixel", "search, kMAC/pixel"]
    assert rows[0] == ["`small`", "2,000", "encode", "1.900", "0.003", "", "1.90", "3.81"]
    assert rows[2:] == [
        ["`large`", "64,000", "encode", "60.000", "", "9.000", "69.00", "138.00"],
        ["`large`", "64,000", "decode", "60.000", "", "", "60.00", "120.00"],
    ]


def test_savings_are_against_each_peer(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    report = build_report(costs, [make_record({**PEERS, "small": (2.5, 20.0)})], [])
    assert report.sets[0].savings == {"small": {"PNG": 50.0, "JPEG XL e7": pytest.approx(16.67)}}
    assert cells(savings_table(report))[1:] == [["photos", "`small`", "50.0 %", "16.7 %"]]
    assert cells(rates_table(report)) == [
        ["images", "PNG", "JPEG XL e7", "`small`"],
        ["photos (10)", "5.000", "3.000", "2.500"],
    ]


def test_peers_come_in_order_and_what_was_not_measured_stays_empty(
    costs: Sequence[Cost], make_record: MakeRecord
) -> None:
    large = make_record({"JPEG XL e9": (2.0, 8.0), "PNG": (3.0, 100.0)}, "b", 3)
    small = make_record({"JPEG XL e7": (4.0, 9.0), "small": (3.0, 9.0)}, "a", 3)
    assert cells(rates_table(build_report(costs, [large, small], []))) == [
        ["images", "PNG", "JPEG XL e7", "JPEG XL e9", "`small`"],
        ["b (3)", "3.000", "", "2.000", ""],
        ["a (3)", "", "4.000", "", "3.000"],
    ]


def test_sets_of_large_images_come_first(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    tiny, huge = make_record(PEERS, "tiny"), make_record(PEERS, "huge")
    for peer in huge["runs"][0]["peers"]:
        peer.update(pixels=10**7, raw_bytes=3 * 10**7)
    assert [each.name for each in build_report(costs, [tiny, huge], []).sets] == ["huge", "tiny"]


def test_megapixels_follow_from_megabytes(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    timing = timing_of(build_report(costs, [make_record({"small": (2.5, 30.0)})], []), "small")
    assert (timing.encode_mb_per_s, timing.decode_mb_per_s) == (15.0, 30.0)
    assert (timing.encode_mp_per_s, timing.decode_mp_per_s) == (5.0, 10.0)


def test_figures_of_another_model_are_left_out(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    old = make_record({"PNG": (5.0, 9.0), "small": (2.0, 9.0)}, models=(("small", "old"),))
    gone = make_record({"gone": (1.0, 9.0)}, models=(("gone", "g"),))
    assert list(build_report(costs, [], [old, gone]).sets[0].bpsp) == ["PNG"]


def test_the_newest_figure_of_a_device_counts(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    newer = make_record({"small": (2.5, 30.0)}, date="2026-03-01")
    older = make_record({"small": (2.5, 20.0)}, date="2026-02-01")
    report = build_report(costs, [], [newer, older])
    timing = timing_of(report, "small")
    assert (timing.date, timing.decode_mb_per_s) == ("2026-03-01", 30.0)
    assert len(report.sets[0].timings) == 1
    assert len(report.machines) == 2


def test_a_run_decides_on_which_images(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    whole = make_record({"PNG": (5.0, 200.0), "small": (2.0, 9.0)}, images=10)
    part = make_record({"small": (3.0, 9.0)}, images=2)
    assert build_report(costs, [part], [whole]).sets[0].bpsp == {"small": 3.0}
    assert build_report(costs, [], [part, whole]).sets[0].bpsp == {"PNG": 5.0, "small": 2.0}
    elsewhere = make_record({"small": (3.0, 9.0)}, "elsewhere")
    assert [each.name for each in build_report(costs, [part], [elsewhere]).sets] == ["photos"]
    other_device = make_record({"small": (3.0, 900.0)}, images=2, device="cuda", gpus=["Graphics 9"])
    devices = [timing.device for timing in build_report(costs, [part], [other_device, whole]).sets[0].timings]
    assert devices == ["Graphics 9", "1 of 4 cores, Abacus 1"]


def test_a_record_of_a_benchmark_is_taken_as_well(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    run = make_record({"small": (2.5, 30.0)})["runs"][0]
    bench = {"machine": run["machine"], "images": "photos", "left_out": 0, "profiles": run["profiles"]}
    assert build_report(costs, [], [bench]).sets[0].bpsp == {"small": 2.5}


def test_where_profiles_stand_to_the_hull_of_the_peers(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    middle = math.sqrt(10.0 * 200.0)
    report = build_report(costs, [make_record({**PEERS, "small": (3.5, middle), "large": (3.2, 9.0)})], [])
    small, large = timing_of(report, "small"), timing_of(report, "large")
    # Half way between 10 and 200 MB/s, the peers' hull is half way between 3 and 5 bits.
    assert (small.on_hull, small.below_peers) == (True, pytest.approx(0.5, abs=1e-4))
    assert (large.on_hull, large.below_peers) == (False, pytest.approx(-0.2, abs=1e-4))
    assert [timing_of(report, peer).on_hull for peer in PEERS] == [True, True]
    assert [timing_of(report, peer).below_peers for peer in PEERS] == [None, None]
    table = {row[1]: row[-2:] for row in cells(standings_table(report).split("\n\n")[1])}
    assert table["`small`"] == ["yes", "+0.500"]
    assert table["`large`"] == ["no", "-0.200"]
    assert table["PNG"] == ["yes", ""]


def test_a_device_is_compared_with_the_peers_of_its_machine_alone(
    costs: Sequence[Cost], make_record: MakeRecord
) -> None:
    here = make_record({**PEERS, "small": (4.0, 100.0)})
    there = make_record({"small": (4.0, 5000.0)}, device="cuda", gpus=["Graphics 9"])
    with_peers = make_record({**PEERS, "small": (4.0, 5000.0)}, device="cuda", gpus=["Graphics 9"], cpu="Abacus 2")
    report = build_report(costs, [here, there, with_peers], [])
    assert timing_of(report, "small").on_hull is not None
    table = standings_table(build_report(costs, [there], []))
    assert cells(table.split("\n\n")[1])[1][-2:] == ["", ""], "no peers, no hull"
    faster = standings_table(build_report(costs, [with_peers], [])).split("On Graphics 9:\n\n")[1]
    assert cells(faster)[1][-2:] == ["yes", "faster than all"]


def test_speeds_stand_device_by_device(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    fresh = make_record({"PNG": (5.0, 200.0), "small": (2.5, 30.04)}, date="2026-05-05")
    earlier = make_record({"small": (2.5, 9000.0)}, device="cuda", gpus=["Graphics 9"], date="2026-04-04")
    table = speeds_table(build_report(costs, [fresh], [earlier]))
    titles = [line for line in table.splitlines() if line.startswith("On ")]
    assert titles == ["On 1 of 4 cores, Abacus 1:", "On Graphics 9:"]
    assert "| PNG | 100 / 200 | 2026-05-05 |" in table
    assert "| `small` | 15.0 / 30.0 | 2026-05-05 |" in table
    assert "| `small` | 4500 / 9000 | 2026-04-04 |" in table


def test_the_whole_report_names_machines_commands_and_settings(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    record = make_record({**PEERS, "small": (2.5, 30.0)}, command="pilc frontier pictures", gpus=["Graphics 9"])
    text = whole_report(build_report(costs, [record], []))
    assert "Graphics 9, Abacus 1, 4 cores" in text
    assert "2026-01-02: `pilc frontier pictures`" in text
    assert "- PNG: PNG 1.0." in text
    assert f"counts as {FLOP_PER_MAC} operations" in text


def test_a_report_without_figures_still_tells_the_costs(costs: Sequence[Cost]) -> None:
    text = whole_report(build_report(costs, [], []))
    assert "`large`" in text
    assert "How much smaller" not in text


def test_the_json_holds_what_the_tables_show(costs: Sequence[Cost], make_record: MakeRecord) -> None:
    report = build_report(costs, [make_record({**PEERS, "small": (2.5, 30.0)})], [])
    document = json.loads(json_text(report))
    assert document == json.loads(json.dumps(report.to_json()))
    small = document["costs"][0]
    assert (small["decode_kmac_per_pixel"], small["decode_kflop_per_pixel"]) == (1.903, 3.806)
    assert small["decode_macs"] == {"network": 1900, "coder": 3}
    assert document["flop_per_mac"] == 2
    (photos,) = document["sets"]
    assert photos["bpsp"] == {"PNG": 5.0, "JPEG XL e7": 3.0, "small": 2.5}
    assert photos["timings"][2]["device"] == "1 of 4 cores, Abacus 1"
