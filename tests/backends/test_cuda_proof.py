"""Every CUDA kernel compiles for Volta, Ampere and Hopper, and takes no more than it may."""

from __future__ import annotations

import pytest
from small_model import SPECS

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.backends.cuda import coder, proof
from pilc_stream.backends.cuda.plan import FEW_REGISTERS, Plan
from pilc_stream.backends.cuda.program import block_threads, fitting, layouts
from pilc_stream.backends.cuda.shim import TENSOR_CAPABILITY
from pilc_stream.backends.cuda.tensor_plan import TensorPlan
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.models.spec import WaveSpec

pytestmark = pytest.mark.slow

V100_SHARED_BYTES = 96 << 10
REGISTERS = 1 << 16
SHARED_BYTES = {(8, 0): 164 << 10, (9, 0): 228 << 10}
"""Of a multiprocessor, by capability."""


def spec_of(profile: str) -> WaveSpec:
    return load_model(preset_bytes(profile)).spec


@pytest.mark.parametrize("capability", proof.CAPABILITIES)
@pytest.mark.parametrize("kernel", coder.__all__)
def test_the_coder(kernel: str, capability: tuple[int, int]) -> None:
    found = proof.resources(None, kernel, capability)
    assert found.spill_bytes == found.stack_bytes == 0
    assert found.registers <= 64


@pytest.mark.parametrize("capability", proof.CAPABILITIES)
@pytest.mark.parametrize("kernel", proof.MODEL_KERNELS)
def test_the_profile_fast(kernel: str, capability: tuple[int, int]) -> None:
    found = proof.resources(Plan(spec_of("fast")), kernel, capability)
    print(found)
    assert found.spill_bytes == found.stack_bytes == 0
    # Four blocks' registers and, on Volta, three blocks' shared memory fit a multiprocessor.
    assert found.registers <= FEW_REGISTERS
    assert 3 * found.shared_bytes <= V100_SHARED_BYTES


@pytest.mark.parametrize("profile", ["default", "high"])
@pytest.mark.parametrize("kernel", ["decode", "model"])
def test_larger_profiles_do_not_spill_on_volta(kernel: str, profile: str) -> None:
    found = proof.resources(Plan(spec_of(profile)), kernel, (7, 0))
    print(found)
    assert found.spill_bytes == found.stack_bytes == 0
    assert 2 * found.shared_bytes <= V100_SHARED_BYTES


def test_the_profile_max_decodes_on_volta_at_its_tiles() -> None:
    model = load_model(preset_bytes("max"))
    plan = fitting(layouts(model.spec, tensor_cores=False), model.tile_log2 - 1, V100_SHARED_BYTES, perceptron=True)
    found = proof.resources(plan, "decode", (7, 0), threads := block_threads(plan, model.tile_log2 - 1))
    print(found)
    assert found.shared_bytes <= V100_SHARED_BYTES
    assert found.registers * threads <= REGISTERS
    assert found.spill_bytes == 0
    # The stack is what threads keep there, and nothing else.
    kept = 4 * plan.thread_words(decoding=True)
    assert kept <= found.stack_bytes <= kept + 16
    # Their words stay in the card's caches: reads and writes of a pixel, beside its bits, tables and samples.
    shared, local = (proof.work(each, "decode") for each in (Plan(model.spec), plan))
    assert local.global_bytes > shared.global_bytes + kept
    assert local.shared_bytes < shared.shared_bytes
    # They are found without a sum for each.
    assert local.instructions <= shared.instructions
    assert "ld.local" not in proof.ptx_of(Plan(model.spec), "decode", (7, 0))


TENSOR_CAPABILITIES = [capability for capability in proof.CAPABILITIES if capability >= TENSOR_CAPABILITY]


@pytest.mark.parametrize("capability", TENSOR_CAPABILITIES)
@pytest.mark.parametrize("kernel", ["decode", "model"])
@pytest.mark.parametrize("profile", ["fast", "max"])
def test_on_tensor_cores(profile: str, kernel: str, capability: tuple[int, int]) -> None:
    spec = spec_of(profile)
    found, done = (made(TensorPlan(spec), kernel, capability) for made in (proof.resources, proof.work))
    print(found, done)
    # Where registers are cut to let four blocks in, a few words of ptxas's choice may wait in memory.
    assert found.spill_bytes <= 64
    # Two blocks on a multiprocessor; of `max`, which follows twenty neighbours, an A100 takes one.
    blocks = 1 if (profile, capability) == ("max", (8, 0)) else 2
    assert blocks * found.shared_bytes <= SHARED_BYTES[capability]
    # Every layer is products of matrices: for 32 pixels at once, at most twice what its weights need.
    network = spec.macs_per_pixel()["network"]
    assert network * 32 / 4096 / 2 < done.mma < 3 * (network * 32 / 4096 + 8)
    # What is left to DP4A are the heads' few outputs.
    assert done.dp4a < proof.work(Plan(spec), kernel).dp4a / 10
    assert "mma.sync" in proof.ptx_of(TensorPlan(spec), kernel, capability)


def test_volta_has_no_products_of_matrices() -> None:
    assert "mma" not in proof.ptx_of(Plan(spec_of("fast")), "decode", (7, 0))


@pytest.mark.parametrize("kernel", proof.MODEL_KERNELS)
def test_an_architecture_with_all_neighbours(kernel: str) -> None:
    found = proof.resources(Plan(SPECS["all neighbours"]), kernel, (7, 0))
    assert found.shared_bytes <= V100_SHARED_BYTES
    assert found.registers <= 255


def test_the_network_runs_on_dp4a() -> None:
    spec = spec_of("fast")
    done = proof.work(Plan(spec), "model")
    words = [len(Plan(spec).layer_words(name)) for name in ("trunk.0", "head.0.hidden")]
    # At least the trunk and three heads' hidden layers, four products each; at most one for each product.
    least = 4 * (6 * words[0] + 3 * 3 * words[1])
    assert least <= done.dp4a <= spec.macs_per_pixel()["network"] // 2
    assert done.instructions > done.dp4a
    # A pixel's context comes in and its three intervals go out.
    assert done.global_bytes >= 4 * (Plan(spec).inputs + 4 + 3)


def test_what_a_thread_reads_at_once() -> None:
    ptx = proof.ptx_of(Plan(spec_of("fast")), "decode", (7, 0))
    assert "ld.shared.v4.u32" in ptx
    assert "ld.global.v4.u32" in ptx
    assert "dp4a.u32.s32" in ptx
    assert "div.rn" not in ptx
    assert "min.s32" in ptx
    # The highest bit in one instruction, not five comparisons.
    assert "bfind.u32" in ptx
