"""Timing of a decoder: every part runs, without the bits that only training asks for."""

from __future__ import annotations

import pytest

from pilc_stream.training.lossy.configurations import Configuration
from pilc_stream.training.lossy.network import DECODER_PARTS, LossyNet
from pilc_stream.training.lossy.timing import part_seconds


@pytest.mark.parametrize("entropy_model", ["hyperprior", "CHARM"])
def test_every_part_of_the_decoder_is_timed(entropy_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = Configuration(
        "Conv", entropy_model, "Conv", (8, 8, 8), 8, 8, 16, hyper_widths=(8, 8), steps=2, step_widths=(8,),
        residual_widths=(8,),
    )  # fmt: skip
    net = LossyNet(configuration)
    asked: list[str] = []
    monkeypatch.setattr("pilc_stream.training.lossy.entropy.gaussian_bits", lambda *_: asked.append("bits"))
    seconds = part_seconds(net, "cpu", rounds=2, height=64, width=128)
    assert set(seconds) == set(DECODER_PARTS)
    assert all(value > 0 for value in seconds.values())
    assert not asked
