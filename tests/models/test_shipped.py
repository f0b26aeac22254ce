from __future__ import annotations

import hashlib

import pytest

from pilc_stream.errors import ModelNotFoundError
from pilc_stream.models.lossy import is_lossy_model, load_lossy_model
from pilc_stream.models.model import load_model
from pilc_stream.models.pilc import is_pilc_model, load_pilc_model
from pilc_stream.models.shipped import preset_bytes, preset_digests, preset_names


def test_the_fast_profile_ships() -> None:
    assert "fast" in preset_names()


@pytest.mark.parametrize("name", preset_names())
def test_a_shipped_profile_is_a_sound_model_of_its_own_name(name: str) -> None:
    data = preset_bytes(name)
    load = load_pilc_model if is_pilc_model(data) else load_lossy_model if is_lossy_model(data) else load_model
    model = load(data)
    assert model.profile == name
    assert model.recipe, "a shipped model says how it was made"
    assert preset_digests()[model.short_digest] == name
    assert model.sha256 == hashlib.sha256(preset_bytes(name)).hexdigest()


def test_short_digests_of_shipped_profiles_differ() -> None:
    assert len(preset_digests()) == len(preset_names())


@pytest.mark.parametrize("name", ["", "nosuch", "../presets/fast", "fast.safetensors"])
def test_an_unknown_profile_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"does not ship with this release; known: .*fast"):
        preset_bytes(name)
