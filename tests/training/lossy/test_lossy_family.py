"""The family: every member is as large and as costly as the paper's, by a count that hand arithmetic confirms."""

from __future__ import annotations

import pytest
import torch

from pilc_stream.training.lossy.blocks import Attention, Gdn, ResidualBottleneck
from pilc_stream.training.lossy.configurations import FAMILY, PUBLISHED
from pilc_stream.training.lossy.counter import HEIGHT, WIDTH
from pilc_stream.training.lossy.family import DOCUMENT, Member, members, with_family_tables
from pilc_stream.training.lossy.network import DECODER_PARTS, PARTS, meta_net, parameters_of

TOLERANCE = 0.03


@pytest.fixture(scope="module")
def family() -> dict[str, Member]:
    return {member.name: member for member in members()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_the_papers_within_three_per_cent(family: dict[str, Member], name: str) -> None:
    differences = family[name].differences()
    assert differences is not None
    assert all(abs(difference) < TOLERANCE for difference in differences), differences


def test_parts_are_those_that_the_paper_names(family: dict[str, Member]) -> None:
    assert {name: member.parts for name, member in family.items()} == {
        **dict.fromkeys("abcd", ("ELIC", "CHARM", "SwinT")),
        "e": ("SwinT", "hyperprior", "Conv"),
        "f": ("ELIC", "hyperprior", "Conv"),
        "g": ("Conv", "hyperprior", "Conv"),
        "final": ("ELIC", "CHARM", "SwinT"),
    }
    final = FAMILY["final"]
    assert (final.residual_blocks, final.widths, final.merged) == (2, (128, 256, 256), True)
    assert 0 < final.split_width < final.features


def test_the_document_shows_the_table(family: dict[str, Member]) -> None:
    text = DOCUMENT.read_text()
    assert with_family_tables(text, list(family.values())) == text, "run: python -m pilc_stream.training.lossy.family"
    assert "| `lossy-g` |" in text
    assert "| `lossy-g` | 0.013 |" in text


def test_the_count_of_g_is_that_of_its_layers(family: dict[str, Member]) -> None:
    first, second, third = FAMILY["g"].widths
    latents, side, (wide, wider) = FAMILY["g"].latents, FAMILY["g"].hyper_width, FAMILY["g"].hyper_widths
    # (inputs, outputs, kernel, pixels per place of the input)
    layers = [(latents, third, 25, 256), (third, second, 25, 64), (second, first, 25, 16), (first, 3, 25, 4)]
    gdn = [(third, third, 1, 64), (second, second, 1, 16), (first, first, 1, 4)]
    hyper = [(side, wide, 25, 64 * 64), (wide, wider, 25, 32 * 32), (wider, 2 * latents, 9, 256)]
    kflop = family["g"].count.kflop_per_pixel
    assert kflop["synthesis"] == pytest.approx(sum(2 * i * o * k / per for i, o, k, per in [*layers, *gdn]) / 1000)
    assert kflop["hyper_synthesis"] == pytest.approx(sum(2 * i * o * k / per for i, o, k, per in hyper) / 1000)
    assert kflop["entropy_model"] == 0


def test_attention_between_tokens_is_counted(family: dict[str, Member]) -> None:
    configuration = FAMILY["e"]
    channels = [3, *configuration.widths, configuration.latents]
    total = 0.0
    for stage, depth in enumerate(configuration.depths):
        width, tokens_per_pixel = channels[stage + 1], 1 / 4 ** (stage + 1)
        block = 12 * width * width + 2 * 64 * width
        total += tokens_per_pixel * (depth * block + 4 * width * channels[stage])
    assert family["e"].count.kflop_per_pixel["synthesis"] == pytest.approx(2 * total / 1000)


def test_parts_make_up_the_whole() -> None:
    for name, configuration in FAMILY.items():
        net = meta_net(configuration)
        assert {child for child, _ in net.named_children()} == {*PARTS, "side_density"}, name
        assert set(DECODER_PARTS) < set(PARTS)
        assert parameters_of(net) == sum(parameters_of(child) for child in net.children())
        assert WIDTH % 64 == HEIGHT % 64 == 0


def test_elic_blocks_are_of_the_published_size() -> None:
    channels = 256
    weights = 3.25 * channels**2
    assert parameters_of(ResidualBottleneck(channels)) == weights + 2 * channels
    assert parameters_of(Attention(channels)) == 6 * (weights + 2 * channels) + channels**2 + channels


def test_gdn_divides_by_the_energy_of_all_channels_and_its_inverse_multiplies() -> None:
    torch.manual_seed(1)
    values = torch.randn(2, 4, 3, 3)
    forward, inverse = Gdn(4), Gdn(4, inverse=True)
    with torch.no_grad():
        forward.root_gamma.uniform_(0, 1)
        inverse.root_gamma.copy_(forward.root_gamma)
    energy = torch.einsum("ij,njhw->nihw", forward.root_gamma**2, values**2) + forward.root_beta[:, None, None] ** 2
    torch.testing.assert_close(forward(values), values / energy.sqrt())
    torch.testing.assert_close(inverse(values), values * energy.sqrt())
