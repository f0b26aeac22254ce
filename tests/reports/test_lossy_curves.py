"""Bjontegaard's measure: exact where the answer is known, near other ways to compute it, and near what is published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.reports.lossy_curves import Curve, anchors, curve_of, rate_saving

RATES = (0.1, 0.22, 0.4, 0.75, 1.3)
PSNRS = (27.0, 30.1, 32.2, 35.0, 38.4)


def scaled(share: float) -> Curve:
    return Curve("scaled", tuple((rate * share, psnr) for rate, psnr in zip(RATES, PSNRS, strict=True)))


@given(st.floats(0.2, 3.0))
def test_a_constant_factor_is_the_saving(share: float) -> None:
    assert rate_saving(scaled(share), scaled(1.0)) == pytest.approx(1 - share, abs=1e-9)
    assert rate_saving(scaled(share), scaled(1.0), (0.2, 1.0)) == pytest.approx(1 - share, abs=1e-9)


def test_lines_in_the_logarithm_are_integrated_exactly() -> None:
    ours = curve_of("ours", [(math.exp((psnr - 36) / 6), psnr) for psnr in (26.0, 29.0, 31.0, 36.0)])
    theirs = curve_of("theirs", [(math.exp((psnr - 35) / 5), psnr) for psnr in (28.0, 30.0, 33.0, 38.0)])
    mean = np.mean([(28 - 36) / 6 - (28 - 35) / 5, (36 - 36) / 6 - (36 - 35) / 5])
    assert rate_saving(ours, theirs) == pytest.approx(1 - math.exp(mean), abs=1e-9)


def cubic_saving(curve: Curve, reference: Curve) -> float:
    """The measure as first published: one cubic through each curve's points, by least squares."""
    fits = []
    for each in (curve, reference):
        rates, psnrs = np.array(each.points).T
        fits.append(np.polyint(np.polyfit(psnrs, np.log(rates), 3)))
    low = max(curve.points[0][1], reference.points[0][1])
    high = min(curve.points[-1][1], reference.points[-1][1])
    areas = [np.polyval(fit, high) - np.polyval(fit, low) for fit in fits]
    return float(1 - np.exp((areas[0] - areas[1]) / (high - low)))


def test_savings_among_the_anchors_are_those_of_one_cubic_and_of_the_paper() -> None:
    source, curves = anchors()
    assert "Kodak" in source
    by_name = {curve.name: curve for curve in curves}
    bpg = by_name["BPG 4:4:4"]
    for name in ("VTM", "Minnen 2020", "hyperprior 2018"):
        saving = rate_saving(by_name[name], bpg)
        assert saving == pytest.approx(cubic_saving(by_name[name], bpg), abs=0.006)
    # The paper's best model is 23.1 % below BPG and 7.0 % below VTM.
    assert rate_saving(by_name["VTM"], bpg) == pytest.approx(1 - (1 - 0.231) / (1 - 0.07), abs=0.03)


def test_the_range_of_rates_is_the_references() -> None:
    # Half the size below 0.4 bits per pixel, equal above.
    kinked = Curve("kinked", tuple((r / 2 if r < 0.4 else r, p) for r, p in zip(RATES, PSNRS, strict=True)))
    low, high = rate_saving(kinked, scaled(1.0), (0.1, 0.22)), rate_saving(kinked, scaled(1.0), (0.75, 1.3))
    assert low == pytest.approx(0.5, abs=0.05)  # the kink bends what is beside it
    assert high == pytest.approx(0.0, abs=0.02)


def test_curves_that_do_not_meet_are_not_compared() -> None:
    above = Curve("above", tuple((rate, psnr + 20) for rate, psnr in zip(RATES, PSNRS, strict=True)))
    assert rate_saving(above, scaled(1.0)) is None
    assert rate_saving(scaled(1.0), scaled(1.0), (2.0, 3.0)) is None
    assert rate_saving(Curve("short", ((0.1, 30.0), (0.2, 32.0))), scaled(1.0)) is None


def test_points_that_buy_nothing_are_left_out() -> None:
    curve = curve_of("c", [(0.5, 33.0), (0.1, 28.0), (0.6, 32.9), (0.8, 36.0)])
    assert curve.points == ((0.1, 28.0), (0.5, 33.0), (0.8, 36.0))
