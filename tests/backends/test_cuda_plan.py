"""The CUDA backend's layout and work list: parameters where kernels look for them, batches within their budget."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import SPECS, random_model

pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed")

from pilc_stream.backends import open_engine
from pilc_stream.backends.cuda.batch import BATCH_BYTES, DecodingBatch, EncodingBatch
from pilc_stream.backends.cuda.engine import BUDGET_VARIABLE, DEFAULT_BUDGET_BYTES, default_budget
from pilc_stream.backends.cuda.memory import Sizes, Slot, part_bytes
from pilc_stream.backends.cuda.plan import BYTES, Plan, ring_rows, team_log2, words_of
from pilc_stream.backends.cuda.program import block_threads, fitting, launch_bytes, layouts
from pilc_stream.backends.cuda.tensor_plan import LIFT, TensorPlan
from pilc_stream.backends.cuda.work import Shapes, batches, runs
from pilc_stream.errors import DeviceError, UsageError
from pilc_stream.models.model import load_model
from pilc_stream.models.shipped import lossless_preset_names, preset_bytes
from pilc_stream.models.spec import EARLIER_INPUTS, WaveSpec


def unit(plan: Plan, packed: np.ndarray, name: str, index: int) -> tuple[int, int, list[list[int]]]:
    """Bias, shift and, for each word of inputs, the four weights of a unit."""
    groups = 0 if name.endswith("mean") else BYTES
    at = plan.place(name) + groups + index // BYTES * plan.group_words(name) + index % BYTES
    words = packed[at + 2 * BYTES : at - index % BYTES + plan.group_words(name) : BYTES].copy()
    return int(packed[at]), int(packed[at + BYTES]), [w.tolist() for w in words.view(np.int8).reshape(-1, 4)]


@pytest.mark.parametrize("name", SPECS)
def test_parameters_are_where_kernels_look_for_them(name: str) -> None:
    model, plan = random_model(SPECS[name], seed=5), Plan(SPECS[name])
    packed = plan.pack(model)
    assert packed.dtype == np.int32
    assert packed.shape == (plan.parameter_words,)
    for layer_name, layer in model.layers.items():
        if layer_name.endswith((".scale", ".coupling")):
            continue
        columns = [column for word in plan.layer_words(layer_name) for column in word.columns]
        for index in range(len(layer.bias)):
            bias, shift, weights = unit(plan, packed, layer_name, index)
            assert (bias, shift) == (layer.bias[index], layer.shift[index])
            flat = [weight for word in weights for weight in word]
            assert flat == [0 if column is None else layer.weight[index, column] for column in columns]
    for c in (1, 2):
        hidden = SPECS[name].head
        for part, first in (("scale", 1), ("coupling", 2)):
            layer = model.layers[f"head.{c}.{part}"]
            for index in range(len(layer.bias)):
                bias, shift, weights = unit(plan, packed, f"head.{c}.mean", first + index)
                flat = [weight for word in weights for weight in word]
                assert (bias, shift, flat[:hidden]) == (
                    layer.bias[index],
                    layer.shift[index],
                    list(layer.weight[index]),
                )


@pytest.mark.parametrize("name", SPECS)
def test_every_input_of_a_layer_has_one_place(name: str) -> None:
    spec, plan = SPECS[name], Plan(SPECS[name])
    for layer_name, (_, inputs) in spec.layers().items():
        if layer_name.endswith((".scale", ".coupling")):
            continue
        words = plan.layer_words(layer_name) + (plan.direct_words if layer_name.endswith("mean") else [])
        columns = [column for word in words for column in word.columns if column is not None]
        assert columns == list(range(inputs))
    earlier = plan.layer_words("head.2.hidden")[words_of(spec.trunk[-1]) :]
    assert all(word.signed for word in earlier)
    assert len(earlier) == words_of(2 * EARLIER_INPUTS + 1)


@pytest.mark.parametrize("name", SPECS)
def test_products_of_matrices_are_the_layers(name: str) -> None:
    """Each layer from its packed tiles, with NumPy in the place of the instruction, against its weights."""
    model, plan = random_model(SPECS[name], seed=9, at_the_bound=True), TensorPlan(SPECS[name])
    packed, random = plan.pack(model), np.random.default_rng(3)
    assert packed.shape == (plan.parameter_words,)
    for layer_name, layer in model.layers.items():
        if not (layer_name.startswith("trunk") or layer_name.endswith("hidden")):
            continue
        matrix = plan.matrix_words(layer_name)
        values = random.integers(0, 256, layer.weight.shape[1])
        first = layer_name == "trunk.0"
        signed = {column for word in matrix if word.signed for column in word.columns if column is not None}
        for column in signed:
            values[column] -= 128
        # What lies in shared memory: fillers hold anything, a later layer's signed inputs stand 128 higher.
        lifted = [values[c] + (0 if first or c not in signed else LIFT) if c is not None else 77
                  for word in matrix for c in word.columns]  # fmt: skip
        lifted += [55] * (-len(lifted) % 32)
        at, expected = plan.place(layer_name), layer.weight.astype(int) @ values + layer.bias
        assert packed[at] == plan.tiles(layer_name)
        for unit, total in enumerate(expected.tolist()):
            tile = packed[at + BYTES + unit // 8 * plan.tile_words(layer_name) :]
            group = unit % 8
            about = tile[4 * (group // 2) : 4 * (group // 2) + 4]
            found = int(about[group % 2])
            assert about[2 + group % 2] == layer.shift[unit]
            for product in range(plan.products(layer_name)):
                for quarter in range(4):
                    lane = 4 * group + quarter
                    words = tile[16 + 128 * (product // 2) + 4 * lane + 2 * (product % 2) :][:2].copy()
                    for far, weights in enumerate(words.view(np.int8).reshape(2, 4)):
                        k = 32 * product + 16 * far + 4 * quarter
                        found += int(weights.astype(int) @ lifted[k : k + 4])
            assert found == total


@pytest.mark.parametrize("name", SPECS)
def test_a_head_leaves_the_last_layer_of_the_trunk_to_the_later_heads(name: str) -> None:
    spec = SPECS[name]
    for plan in (Plan(spec), TensorPlan(spec), Plan(spec, local=True)):
        read = len(plan.layer_words("head.2.hidden"))
        if isinstance(plan, TensorPlan):
            # Whole products are read, with the head's own inputs.
            assert plan.head_at >= 8 * plan.products("head.2.hidden") >= read
        assert plan.head_at >= words_of(spec.trunk[-1])
        assert plan.hidden_words >= plan.head_at + words_of(spec.head)
        assert plan.hidden_words >= max(words_of(width) for width in spec.trunk)


BLOCK_BYTES = {"V100": 96 << 10, "L4": 99 << 10, "H200": 227 << 10}
"""Shared memory that a block may have; an L4 has tensor cores for bytes as well."""


@pytest.mark.parametrize("profile", [name for name in lossless_preset_names() if name != "pilc"])
@pytest.mark.parametrize("card", BLOCK_BYTES)
def test_every_profile_fits_at_its_tiles(profile: str, card: str) -> None:
    model = load_model(preset_bytes(profile))
    team, plans = model.tile_log2 - 1, layouts(model.spec, tensor_cores=card != "V100")
    assert team == team_log2(1 << model.tile_log2, 1 << model.tile_log2)
    found = fitting(plans, team, BLOCK_BYTES[card], perceptron=True)
    # Local memory is for those alone that would not fit without.
    assert found.local == (profile == "max" and card != "H200")
    assert found is plans[-1 if found.local else 0]
    assert fitting(plans[:1], team, BLOCK_BYTES[card], perceptron=False) is plans[0]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("team", [2, 5, 7, 9])
def test_layouts_need_less_and_less(name: str, team: int) -> None:
    plans = layouts(SPECS[name], tensor_cores=False)
    needed = [launch_bytes(plan, team, perceptron=True) for plan in plans]
    assert needed == sorted(set(needed), reverse=True)
    for plan, each in zip(plans, needed, strict=True):
        assert fitting(plans, team, each, perceptron=True) is plan
    with pytest.raises(DeviceError, match=rf"decode tiles of up to {2 << team} .* needs {needed[-1]} bytes"):
        fitting(plans, team, needed[-1] - 1, perceptron=True)
    # What a thread keeps is all that local memory takes over.
    words = plans[0].thread_words(decoding=True) * block_threads(plans[0], team)
    assert needed[0] - needed[-1] == 4 * words


@given(st.integers(1, 1024), st.integers(1, 1024))
def test_a_team_has_a_thread_for_each_pixel_of_a_step_and_a_ring_for_its_rows(height: int, width: int) -> None:
    threads = 1 << team_log2(height, width)
    longest = max(min(height - 1, t // 2) + 1 - max(0, (t - width + 2) // 2) for t in range(width + 2 * height - 2))
    assert 4 <= threads <= 512
    assert longest <= threads < max(8, 2 * longest)
    # Three rows above the first, one about to begin.
    assert ring_rows(threads) >= longest + 5
    assert ring_rows(threads) % 4 == 0


def test_shared_memory_of_the_usual_block_fits_three_times_on_volta() -> None:
    six = WaveSpec(SPECS["six"].neighbours, taps=6, trunk=(22,), head=11)
    assert 3 * 4 * Plan(six).shared_words(128, 1) <= 96 << 10


def test_the_environment_sets_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BUDGET_VARIABLE, raising=False)
    assert default_budget() == DEFAULT_BUDGET_BYTES
    monkeypatch.setenv(BUDGET_VARIABLE, "300")
    assert default_budget() == 300 << 20
    for odd in ("", "0", "-1", "4G"):
        monkeypatch.setenv(BUDGET_VARIABLE, odd)
        with pytest.raises(UsageError, match="give a whole number"):
            default_budget()


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cpu:1", "cuda:-1", "gpu"])
def test_a_device_has_a_known_name(device: str) -> None:
    with pytest.raises(UsageError, match="is unknown; known: auto"):
        open_engine(device)


tile_shapes = st.tuples(st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 3]), st.integers(0, 5))


@given(st.lists(tile_shapes, min_size=1, max_size=30), st.integers(1, 10**6))
def test_batches_hold_every_tile_once_within_the_budget(tiles: list[tuple[int, int, int, int]], budget: int) -> None:
    shapes = Shapes.of(*zip(*tiles, strict=True))
    found = [batch.tolist() for batch in batches(shapes, shapes.pixels, budget)]
    assert sorted(index for batch in found for index in batch) == list(range(len(tiles)))
    for batch in found:
        assert len(batch) == 1 or sum(tiles[i][0] * tiles[i][1] for i in batch) <= budget
        some = shapes.take(np.array(batch))
        parts = list(runs(some.team_log2))
        assert [part.first for part in parts] == [0, *[part.last for part in parts]][:-1]
        assert parts[-1].last == len(batch)
        # One launch for each size of team, the largest first, and of equal ones the longest first.
        kinds = [part.kind for part in parts]
        assert kinds == sorted(set(kinds), reverse=True)
        for one, two in pairwise(zip(some.team_log2, some.lanes_log2, some.steps, strict=True)):
            assert one[:2] != two[:2] or one[2] >= two[2]


@given(st.lists(tile_shapes, min_size=1, max_size=20), st.booleans(), st.integers(1, 10**6))
def test_a_batch_takes_no_more_than_its_tiles_cost(
    tiles: list[tuple[int, int, int, int]], placed: bool, budget: int
) -> None:
    program, asked = SimpleNamespace(plan=Plan(SPECS["six"])), list[int]()

    class Counted(Slot):
        def __init__(self) -> None:
            pass

        def lay_out(self, device: Sizes, pinned: Sizes, limit_bytes: int) -> None:
            asked.append(sum(part_bytes(*size) for size in device.values()))
            self._parts = {f"device {name}": np.empty(max(1, n), dtype) for name, (n, dtype) in device.items()}
            self._parts |= {f"pinned {name}": np.empty(max(1, n), dtype) for name, (n, dtype) in pinned.items()}

    shapes = Shapes.of(*zip(*tiles, strict=True))
    costs = EncodingBatch.costs(program, shapes)
    for members in batches(shapes, costs, budget):
        EncodingBatch(Counted(), program, shapes.take(members), [])
        assert asked[-1] <= costs[members].sum() + BATCH_BYTES
    streams = [memoryview(bytes(4 << tile[3])) for tile in tiles]
    places = np.zeros((len(tiles), 2), np.int64) if placed else None
    DecodingBatch(Counted(), program, shapes, streams, places)
    stream_bytes = np.array([len(stream) for stream in streams])
    costs = DecodingBatch.costs(program, shapes, stream_bytes, placed=placed)
    assert asked[-1] <= costs.sum() + BATCH_BYTES


@given(st.lists(st.integers(0, 3), max_size=12))
def test_runs(kinds: list[int]) -> None:
    found = list(runs(np.array(kinds, np.int64)))
    assert [kind for first, last, kind in found for _ in range(first, last)] == kinds
    assert all(one.kind != two.kind for one, two in pairwise(found))
