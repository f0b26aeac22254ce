"""The paper's table: what is measured, what is predicted, and what reaches the goal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.reports.paper_table import card_rates, card_row, cpu_row, fused_cpu_row, table, time_table
from pilc_stream.reports.roofline import ceilings
from pilc_stream.reports.roofline_document import recorded

LINES = {(line.card, line.profile): line for line in recorded()}


def test_parts_of_the_cpu_add_up_to_the_whole() -> None:
    row = cpu_row("pilc", "some CPU", {"choices": 2.0, "network": 1.0, "encode": 4.0, "decode": 2.0}, 600_000_000)
    assert row.inference == (200, 600)
    assert row.coder == (600, 600)
    assert row.measured == (150, 300)
    assert table([row]).splitlines()[-1] == (
        "| some CPU | pilc | measured | yes | yes | yes: 200 / 600 | yes: 600 / 600 | none needed | 150 / 300 |"
    )
    assert "| no: 150 / 99 | with the inference |" in table([fused_cpu_row("fast", "some CPU", (150.0, 99.0))])


@pytest.mark.parametrize("card", ceilings())
def test_cards_are_predicted_until_they_are_measured(card: str) -> None:
    line = LINES[card, "pilc"]
    row = card_row(line, None)
    assert row.coder is not None
    # Times of inference and coder add to that of the whole.
    for part, coder, whole in zip(row.inference, row.coder, (line.encode_mb_per_s, line.decode_mb_per_s), strict=True):
        assert 1 / part + 1 / coder == pytest.approx(1 / whole)
    assert table([row]).endswith("|  |")
    assert card_row(LINES[card, "fast"], (7.0, 8.0)).coder is None
    assert table([card_row(LINES[card, "fast"], (7.0, 8.0))]).endswith("| 7 / 8 |")
    shares = [line for line in time_table("pilc").splitlines() if line.startswith(f"| {card} |")]
    assert len(shares) == 2


def test_what_does_not_fit_a_card_is_not_said_to_reach_the_goal() -> None:
    line = LINES["V100", "max"]
    large = replace(line, kernels={**line.kernels, "decode": replace(line.kernels["decode"], blocks=0)})
    assert re.search(r"\| no: \d+ / does not fit \|", table([card_row(large, None)]))


def test_rates_of_a_card_are_those_of_its_best_batch(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    assert card_rates(path) == {}

    def figures(rate: float) -> dict:
        stages = [{"stage": f"{way} tiles, host to host", "mb_per_s": rate} for way in ("encode", "decode")]
        return {"profile": "fast", "stages": stages}

    document = {"machine": {"gpus": ["NVIDIA H200"]}, "figures": [figures(5.0), figures(9.0), figures(7.0)]}
    path.write_text(json.dumps(document))
    assert card_rates(path) == {("H200", "fast"): (9.0, 9.0)}
