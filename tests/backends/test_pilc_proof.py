"""Every CUDA kernel of the codec `pilc` compiles for Volta, Ampere and Hopper, and takes no more than it may."""

from __future__ import annotations

import pytest
from small_pilc import SMALL_PILC_SPEC, WIDE_PILC_SPEC

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.backends.cuda.proof import CAPABILITIES
from pilc_stream.backends.pilc import proof
from pilc_stream.backends.pilc.cuda_program import bodies
from pilc_stream.backends.pilc.plan import PilcPlan
from pilc_stream.models.pilc import load_pilc_model
from pilc_stream.models.shipped import preset_bytes

pytestmark = pytest.mark.slow

PLAN = PilcPlan(load_pilc_model(preset_bytes("pilc")).spec)
LAYERS = [layer.name for layer in PLAN.layers]
MOST_REGISTERS = {"choose": 112, **dict.fromkeys([*LAYERS, "distribute"], 72)}
"""Of 64 elsewhere: nine blocks of `choose`, seven of a layer and eight of all others fit a multiprocessor."""

MOST_SHARED_BYTES = 12 << 10


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kernel", bodies(PLAN))
def test_a_kernel_of_the_shipped_model(kernel: str, capability: tuple[int, int]) -> None:
    found = proof.resources(PLAN, kernel, capability)
    print(found)
    assert found.spill_bytes == found.stack_bytes == 0
    assert found.registers <= MOST_REGISTERS.get(kernel, 64)
    assert found.shared_bytes <= MOST_SHARED_BYTES
    text = proof.ptx_of(PLAN, kernel, capability)
    # The integer law: no float anywhere.
    assert ".f64" not in text
    assert ".f32" not in text


@pytest.mark.parametrize("spec", [SMALL_PILC_SPEC, WIDE_PILC_SPEC], ids=["small", "wide"])
@pytest.mark.parametrize("kernel", ["choose", "residual_intervals", "undo", "coarse.split", "distribute"])
def test_kernels_of_other_architectures_compile(kernel: str, spec) -> None:
    assert proof.resources(PilcPlan(spec), kernel, (7, 0)).registers <= 255


def test_the_network_runs_on_dp4a() -> None:
    done = {name: proof.work(PLAN, name, (7, 0))[0] for name in [*LAYERS, "distribute"]}
    products = sum(each.dp4a for each in done.values())
    # Four products each, and hardly any filler.
    assert products == pytest.approx(PLAN.spec.macs_per_pixel()["network"] / 4, rel=0.02)
    assert sum(each.instructions for each in done.values()) < 3 * products
    assert "ld.shared.v4.u32" in proof.ptx_of(PLAN, "fine", (7, 0))


def test_predictors_run_on_dp2a() -> None:
    done, waiting = proof.work(PLAN, "undo", (7, 0))
    # Two products each, of two bytes of one pixel: at most one for each tap.
    taps = PLAN.spec.macs_per_pixel()["predictor"]
    assert taps / 2 <= done.dp4a <= taps
    assert done.dp4a < waiting < 600
    chosen, alone = proof.work(PLAN, "choose", (7, 0))
    assert chosen.dp4a == PLAN.spec.predictors * done.dp4a
    assert alone == 0
