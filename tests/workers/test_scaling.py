"""Sixty-four actors in a model of a cluster, scheduled by the real fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("ray")

from modelled_cluster import Assumptions, network_limit, run, throughput

CALM = replace(Assumptions(), request_fault=0.0, shard_failure=0.0, actor_death=0.0)


@pytest.mark.slow
def test_throughput_grows_with_the_actors_up_to_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    taken = Assumptions()
    print(taken.sentences())
    single = throughput(1, taken)
    rates = {actors: throughput(actors, taken) for actors in (2, 4, 8, 16, 32, 64)}
    limit = network_limit(taken)
    for actors, rate in rates.items():
        print(f"{actors:3} actors: {rate / 1e6:7.0f} MB/s")
        ideal = min(actors * single, limit)
        # A job has an end, where some actors idle, and a beginning, and here a death now and then.
        assert rate > 0.85 * ideal, f"{actors} actors"
        assert rate <= 1.05 * limit
    assert "All actors share 100 Gbit/s" in capsys.readouterr().out


def test_a_codec_is_kept_busy_while_shards_come_and_go() -> None:
    model, _ = run(4, 80, CALM)
    coding = 20 * CALM.shard_bytes / CALM.code
    assert model.now - CALM.start_s < 1.15 * coding


def test_every_shard_is_made_whatever_fails() -> None:
    model, ledger = run(16, 300, replace(Assumptions(), shard_failure=0.05, actor_death=0.02), seed=3)
    assert ledger.given_up == {}
    assert model.deaths > 0
    assert model.failures > 5
    assert model.faults > 30
