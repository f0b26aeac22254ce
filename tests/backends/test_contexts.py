"""What `contexts` gives to training is what the reference's planes hold."""

from __future__ import annotations

import numpy as np
import pytest
from contents import CONTENTS
from small_model import SPECS, random_model

from pilc_stream.backends.cpu import CpuEngine
from pilc_stream.backends.planes import coding_planes, plane_context


@pytest.mark.parametrize("spec_name", ["small", "six"])
@pytest.mark.parametrize("channels", [1, 3])
def test_contexts_are_those_of_the_planes(spec_name: str, channels: int) -> None:
    spec = SPECS[spec_name]
    tiles = [CONTENTS["photo"](h, w, channels, h) for h, w in ((9, 21), (9, 21), (9, 21), (1, 5), (6, 1))]
    for tile, context in zip(tiles, CpuEngine().contexts(random_model(spec, 5), tiles), strict=True):
        expected = plane_context(spec, coding_planes(tile), channels)
        assert np.array_equal(context.inputs, expected.inputs.transpose(1, 2, 0))
        assert np.array_equal(context.bases, expected.bases.transpose(1, 2, 0))
        assert np.array_equal(context.exponent, expected.exponent)
        assert np.array_equal(context.predictions, expected.predictions.transpose(1, 2, 0))
