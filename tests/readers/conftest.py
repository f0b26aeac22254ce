from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_sets import Made, MakeDataset, make_set


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """A maker of a data set in a temporary folder; arguments as `make_set` takes them."""

    def make(sizes: list[int], name: str = "set", **options: Any) -> Made:
        return make_set(str(tmp_path / name), sizes, **options)

    return make
