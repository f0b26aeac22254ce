from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilc_stream.codecs import Decoder, open_codec
from pilc_stream.errors import UsageError
from pilc_stream.storage import SourceFile, Store, expand
from workers.forecast import Cluster, Measured, forecast, measure, spread

# One raw megabyte in 0.5 MB of source: 10 ms to decode, 50 ms to code on a core, 0.35 MB of payload.
SAMPLE = Measured(10, 500_000, 1_000_000, 350_000, 0.010, 0.050, on_gpu=False)
TB = 10**12


def test_the_busiest_resource_is_the_time() -> None:
    found = forecast(TB, SAMPLE, Cluster(cores=96, gpus=8, network_gbps=25, gpu_mb_s=1000.0))
    assert found.busy_s == pytest.approx(
        {"network": 1.7e12 * 8 / 25e9, "cores": 2e6 * 0.010 / 96, "GPUs": 2e12 / (8 * 1e9)}
    )
    assert (found.bottleneck, found.seconds) == ("network", pytest.approx(544.0))
    assert (found.stored_bytes, found.saved_bytes, found.raw_bytes) == (700 * 10**9, 300 * 10**9, 2 * TB)


def test_without_gpus_cores_code_as_well() -> None:
    found = forecast(TB, SAMPLE, Cluster(cores=100, network_gbps=100))
    assert (found.bottleneck, found.seconds) == ("cores", pytest.approx(2e6 * 0.060 / 100))
    assert "GPUs" not in found.busy_s


def test_gpus_that_nobody_has_measured_are_not_guessed() -> None:
    with pytest.raises(UsageError, match="--gpu-mb-per-second"):
        forecast(TB, SAMPLE, Cluster(cores=8, gpus=1))
    with pytest.raises(UsageError, match="Use --device cpu"):
        forecast(TB, Measured(1, 1, 1, 1, 1.0, 1.0, on_gpu=True), Cluster(cores=8))
    with pytest.raises(UsageError, match="at least one core"):
        Cluster(cores=0)


@given(st.integers(1, 10**15), st.integers(1, 512), st.floats(0.1, 400))
def test_twice_the_cluster_takes_half_the_time(source_bytes: int, cores: int, gbps: float) -> None:
    once = forecast(source_bytes, SAMPLE, Cluster(cores, network_gbps=gbps))
    twice = forecast(source_bytes, SAMPLE, Cluster(2 * cores, network_gbps=2 * gbps))
    assert twice.seconds == pytest.approx(once.seconds / 2)
    assert once.bottleneck == twice.bottleneck


@pytest.mark.parametrize("count", [1, 5, 63, 64, 65, 1000, 100_000])
def test_a_sample_is_spread_over_the_listing(count: int) -> None:
    store = Store.open("memory://spread")
    parts = [SourceFile(f"{number:07}", "x", 1, store) for number in range(count)]
    chosen = [int(part.key) for part in spread(parts, count)]
    assert len(chosen) == len(set(chosen))
    assert min(count, 20) <= len(chosen) <= 64
    assert chosen[-1] >= 0.9 * (count - 1) - 1


def test_a_sample_is_measured_without_a_trace(source: Path) -> None:
    before = sorted(source.parent.rglob("*"))
    measured = measure(list(expand(str(source))), open_codec("raw"), Decoder(), verify="all", on_gpu=False)
    assert measured.images == 6
    assert measured.source_bytes == sum(path.stat().st_size for path in source.iterdir())
    assert measured.raw_bytes == 6 * 17 * 25 * 3
    assert 0 < measured.payload_bytes < measured.source_bytes
    assert measured.decode_s > 0
    assert sorted(source.parent.rglob("*")) == before
