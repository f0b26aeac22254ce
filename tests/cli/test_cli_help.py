"""The help texts are files: a change of a flag shows in a review."""

from __future__ import annotations

import pytest
from regenerate_help import FOLDER, help_texts


@pytest.mark.parametrize("name", sorted(help_texts()))
def test_help_is_the_stored_text(name: str) -> None:
    stored = FOLDER / f"{name}.txt"

    assert stored.is_file(), f"run python {FOLDER.parent}/regenerate_help.py"
    assert help_texts()[name] == stored.read_text(), f"run python {FOLDER.parent}/regenerate_help.py"


def test_no_text_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(help_texts())
