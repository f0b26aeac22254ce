"""Every CUDA kernel of the codec `pilc` compiles for Volta and Hopper; the simulator infers no types."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from numba import types

from pilc_stream.backends.cuda.shim import cuda
from pilc_stream.backends.pilc import cuda_kernels

pytestmark = pytest.mark.slow


def arrays(*kinds: tuple[str, int]) -> tuple:
    return tuple(types.Array(getattr(types, name), axes, "C") for name, axes in kinds)


PREDICTOR = arrays(("int32", 2), ("int16", 2), ("int32", 1))
LAYER = arrays(("int8", 2), ("int32", 1), ("uint8", 1))
NUMBER = (types.int64,)
BYTES = arrays(("uint8", 4))
FOUND = arrays(("uint16", 4), ("int16", 4))
STATES = arrays(("uint16", 1), ("int64", 1), ("int64", 2), ("int32", 1))

SIGNATURES = {
    "add_residuals": BYTES + NUMBER + PREDICTOR + arrays(("int32", 5)),
    "choose": arrays(("int32", 5), ("int32", 3), ("int32", 1), ("int32", 1), ("int32", 2), ("int32", 2), ("int32", 1))
    + BYTES,
    "embed": BYTES + arrays(("uint8", 2), ("uint8", 2)) + BYTES,
    "convolve": BYTES + NUMBER + LAYER + NUMBER + BYTES,
    "distribute": BYTES + LAYER + BYTES + arrays(("int16", 2), ("int16", 2), ("uint16", 2)) + FOUND,
    "block_intervals": BYTES + arrays(("uint8", 1), ("uint16", 2), ("uint16", 2), ("int32", 3)),
    "residual_intervals": BYTES + NUMBER + PREDICTOR + BYTES + arrays(("uint16", 2)) + FOUND + NUMBER
    + arrays(("int32", 3)),
    "encode_lanes": arrays(("int32", 3)) + 2 * NUMBER + arrays(("int64", 2), ("uint16", 2), ("int32", 1)),
    "decode_blocks": arrays(("uint8", 1), ("uint16", 2), ("uint16", 2)) + NUMBER + STATES + BYTES,
    "decode_residuals": arrays(("uint16", 2)) + FOUND + NUMBER + STATES + BYTES,
    "undo": BYTES + BYTES + 3 * PREDICTOR,
}  # fmt: skip


@pytest.mark.parametrize("capability", [(7, 0), (9, 0)])
@pytest.mark.parametrize("kernel", SIGNATURES)
def test_a_kernel_compiles(kernel: str, capability: tuple[int, int]) -> None:
    text, _ = cuda.compile_ptx(getattr(cuda_kernels, kernel), SIGNATURES[kernel], cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in text
    # The integer law: no float anywhere.
    assert ".f64" not in text
    assert ".f32" not in text
