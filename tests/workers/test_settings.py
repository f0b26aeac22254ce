from __future__ import annotations

from typing import Any

import pytest

from pilc_stream.errors import UsageError
from workers.settings import JobSettings


def test_only_sources_and_destination_must_be_given() -> None:
    settings = JobSettings(sources=("photos",), destination="out")

    assert (settings.profile, settings.on_existing, settings.verify) == ("fast", "resume", "all")
    assert settings.workers is None
    assert settings.shard_size == 128 << 20


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"sources": ()}, "No source was given"),
        ({"sources": ("a", "")}, "No source was given"),
        ({"destination": ""}, "No destination was given"),
        ({"device": "tpu"}, "--device: 'tpu' is unknown; choose one of auto, cpu, cuda, reference"),
        ({"on_existing": "merge"}, "--on-existing: 'merge' is unknown"),
        ({"verify": "some"}, "--verify: 'some' is unknown"),
        ({"shard_size": 0}, "--shard-size: 0 is not possible"),
        ({"max_pixels": -1}, "--max-pixels: -1 is not possible"),
        ({"limit": 0}, "--limit: 0 is not possible"),
        ({"threads": 0}, "--threads: 0 is not possible"),
        ({"workers": -1}, "--workers: -1 is not possible"),
        ({"workers": 0, "ray_address": "auto"}, "leave one of them out"),
        ({"gpus_per_worker": 0}, "--gpus-per-worker: 0 is not possible"),
        ({"gpus_per_worker": float("nan")}, "--gpus-per-worker: nan is not possible"),
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker: 1.5 is not possible"),
        ({"gpus_per_worker": 1, "workers": 0}, "which --workers 0 excludes"),
        ({"gpus_per_worker": 1, "device": "cpu"}, "which --device cpu excludes"),
        ({"retry_failed": True, "on_existing": "overwrite"}, "leave one of them out"),
    ],
)
def test_an_impossible_value_is_refused_in_a_sentence(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        JobSettings(**{"sources": ("photos",), "destination": "out", **fields})

    assert part in str(caught.value)
    assert str(caught.value).endswith(".")
