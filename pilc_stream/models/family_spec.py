"""The architecture of the lossy family's models: its networks as lists of parts, and what numbers these have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pilc_stream.errors import ModelError

COLOURS = 3
KERNEL = 5
"""Of the convolutions that change the resolution."""

HEAD_CHANNELS = 32
MLP_FACTOR = 4
TRANSFORM_WINDOW, HYPER_WINDOW = 8, 4
ATTENTION_BLOCKS = 3
MAX_WIDTH = 2048
MAX_COUNT = 64
"""Most blocks, or steps, of a kind."""


@dataclass(frozen=True)
class Configuration:
    """One member. `widths`: channels from the picture to the latents, mirrored in the synthesis.

    Of ELIC's transforms: `residual_blocks` a stage, and whether there is `attention` at a quarter of the edges and on
    the latents. Of SwinT's: `depths`, the last on the latents. `hyper_width`: channels of the side information, and of
    the hyper analysis; `hyper_widths`: of the convolutional hyper synthesis; `hyper_depths`: of SwinT's, from the
    latents on; `features`: what comes out of it. Of CHARM: `steps`, the `step_widths` of each one's network and the
    `residual_widths` of the one that predicts what rounding took, `merged` by a convolution or added; with
    `split_width`, each step has so many features of its own.
    """

    transforms: Literal["Conv", "ELIC", "SwinT"]
    entropy_model: Literal["hyperprior", "CHARM"]
    hyper_transforms: Literal["Conv", "SwinT"]
    widths: tuple[int, ...]
    latents: int
    hyper_width: int
    features: int
    residual_blocks: int = 0
    attention: tuple[bool, bool] = (False, False)
    depths: tuple[int, ...] = ()
    hyper_widths: tuple[int, ...] = ()
    hyper_depths: tuple[int, ...] = ()
    steps: int = 1
    step_widths: tuple[int, ...] = ()
    residual_widths: tuple[int, ...] = ()
    merged: bool = False
    split_width: int = 0

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values; `from_json` is the inverse."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Configuration:
        """A configuration from parsed JSON; ModelError where there is no network of it."""
        try:
            if set(values) != {each.name for each in fields(Configuration)}:
                raise ValueError("its entries are not those of this release")
            tuples: dict[str, Any] = {n: tuple(each) if isinstance(each, list) else each for n, each in values.items()}
            found = Configuration(**tuples)
            _check(found)
        except (TypeError, ValueError) as error:
            raise ModelError(f"model of the lossy family: its configuration is none ({error}): {values}") from error
        return found


def _check(given: Configuration) -> None:
    """Raise ValueError or TypeError where there is no network of this configuration."""
    kinds = (given.transforms in ("Conv", "ELIC", "SwinT"), given.entropy_model in ("hyperprior", "CHARM"))
    if not all(kinds) or given.hyper_transforms not in ("Conv", "SwinT"):
        raise ValueError("a part of an unknown kind")
    widths = (*given.widths, given.latents, given.hyper_width, given.features, *given.hyper_widths)
    widths += (*given.step_widths, *given.residual_widths)
    counts = (given.residual_blocks, *given.depths, *given.hyper_depths, given.steps)
    if not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in widths):
        raise ValueError(f"widths must be whole and lie in 1..{MAX_WIDTH}")
    if not all(type(count) is int and 0 <= count <= MAX_COUNT for count in counts):
        raise ValueError(f"counts of blocks must be whole and lie in 0..{MAX_COUNT}")
    if len(given.widths) != 3 or [type(each) for each in (*given.attention, given.merged)] != [bool] * 3:
        raise ValueError("three widths, and whether there is attention at each of two places, make a transform")
    if given.transforms == "ELIC" and min(*given.widths, given.latents) < 2:
        raise ValueError("residual blocks compute on half of at least two channels")
    if given.transforms == "SwinT" and len(given.depths) != 4:
        raise ValueError("transforms of SwinT have four depths")
    if given.hyper_transforms == "Conv" and len(given.hyper_widths) != 2:
        raise ValueError("convolutional hyper transforms have two widths")
    if given.hyper_transforms == "SwinT" and len(given.hyper_depths) != 2:
        raise ValueError("hyper transforms of SwinT have two depths")
    if type(given.split_width) is not int or not 0 <= given.split_width <= MAX_WIDTH:
        raise ValueError("features are split to a width")
    if given.entropy_model == "hyperprior" and (given.features != 2 * given.latents or given.steps != 1):
        raise ValueError("a hyperprior has a mean and a scale for each latent")
    if given.entropy_model == "CHARM" and (given.steps < 1 or given.latents % given.steps):
        raise ValueError("the latents are not whole slices")
    if given.entropy_model == "hyperprior" and given.split_width:
        raise ValueError("only channel-wise steps have features of their own")
    of_swin: tuple[int, ...] = (*given.widths, given.latents) if given.transforms == "SwinT" else ()
    of_swin += (given.hyper_width,) if given.hyper_transforms == "SwinT" else ()
    if any(width % heads_of(width) for width in of_swin):
        raise ValueError("channels are not whole heads of attention")


def heads_of(channels: int) -> int:
    """Heads of window attention."""
    return max(1, channels // HEAD_CHANNELS)


class Part(NamedTuple):
    """A part of a network, `name` as its tensors begin.

    `kind`: "same", "down", "up" (convolutions by their stride, transposed), "relu", "gelu", "gdn", "inverse gdn",
    "residual", "attention", "swin down", "swin up".
    """

    kind: str
    name: str
    inputs: int
    outputs: int
    kernel: int = 0
    depth: int = 0
    window: int = 0


class Tensors(NamedTuple):
    """The numbers of a layer: `kind` "convolution" (outputs first), "transposed" (inputs first), "linear", "norm",
    "gdn" or "position"; `shape` of its weight."""

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """How many outputs, or elements, it has."""
        return self.shape[1] if self.kind == "transposed" else self.shape[0]


def tensors_of(part: Part) -> Iterator[Tensors]:
    """The layers of a part."""
    name, inputs, outputs, kernel = part.name, part.inputs, part.outputs, part.kernel
    if part.kind in ("same", "down"):
        yield Tensors(name, "convolution", (outputs, inputs, kernel, kernel))
    elif part.kind == "up":
        yield Tensors(name, "transposed", (inputs, outputs, kernel, kernel))
    elif part.kind in ("gdn", "inverse gdn"):
        yield Tensors(name, "gdn", (inputs, inputs))
    elif part.kind == "residual":
        yield from _residual(name, inputs)
    elif part.kind == "attention":
        for number in range(ATTENTION_BLOCKS):
            yield from _residual(f"{name}.trunk.{number}", inputs)
            yield from _residual(f"{name}.gate.{number}", inputs)
        yield Tensors(f"{name}.gate.{ATTENTION_BLOCKS}", "convolution", (inputs, inputs, 1, 1))
    elif part.kind == "swin down":
        yield Tensors(f"{name}.normalise", "norm", (4 * inputs,))
        yield Tensors(f"{name}.merge", "linear", (outputs, 4 * inputs))
        yield from _blocks(part, outputs)
    elif part.kind == "swin up":
        yield from _blocks(part, inputs)
        yield Tensors(f"{name}.normalise", "norm", (inputs,))
        yield Tensors(f"{name}.split", "linear", (4 * outputs, inputs))


def _residual(name: str, channels: int) -> Iterator[Tensors]:
    half = channels // 2
    yield Tensors(f"{name}.layers.0", "convolution", (half, channels, 1, 1))
    yield Tensors(f"{name}.layers.2", "convolution", (half, half, 3, 3))
    yield Tensors(f"{name}.layers.4", "convolution", (channels, half, 1, 1))


def _blocks(part: Part, channels: int) -> Iterator[Tensors]:
    for number in range(part.depth):
        name = f"{part.name}.blocks.{number}"
        yield Tensors(f"{name}.before_attention", "norm", (channels,))
        yield Tensors(f"{name}.attention.query_key_value", "linear", (3 * channels, channels))
        yield Tensors(f"{name}.attention.position_bias", "position", (heads_of(channels), (2 * part.window - 1) ** 2))
        yield Tensors(f"{name}.attention.out", "linear", (channels, channels))
        yield Tensors(f"{name}.before_perceptron", "norm", (channels,))
        yield Tensors(f"{name}.perceptron.0", "linear", (MLP_FACTOR * channels, channels))
        yield Tensors(f"{name}.perceptron.2", "linear", (channels, MLP_FACTOR * channels))


_Rest = tuple[Any, ...]


def _numbered(name: str, parts: Sequence[_Rest]) -> list[Part]:
    return [Part(kind, f"{name}.{number}", *rest) for number, (kind, *rest) in enumerate(parts)]


def analysis_parts(given: Configuration) -> list[Part]:
    """Pictures to latents."""
    steps = list(pairwise((COLOURS, *given.widths, given.latents)))
    parts: list[_Rest] = []
    for place, (inputs, outputs) in enumerate(steps):
        last = place == len(steps) - 1
        if given.transforms == "SwinT":
            parts.append(("swin down", inputs, outputs, 0, given.depths[place], TRANSFORM_WINDOW))
            continue
        parts.append(("down", inputs, outputs, KERNEL))
        if given.transforms == "Conv":
            parts += [] if last else [("gdn", outputs, outputs)]
            continue
        parts += [] if last else [("residual", outputs, outputs)] * given.residual_blocks
        if (place == 1 and given.attention[0]) or (last and given.attention[1]):
            parts.append(("attention", outputs, outputs))
    return _numbered("analysis", parts)


def synthesis_parts(given: Configuration) -> list[Part]:
    """Latents to pictures."""
    steps = list(pairwise((given.latents, *reversed(given.widths), COLOURS)))
    parts: list[_Rest] = []
    if given.transforms == "ELIC" and given.attention[1]:
        parts.append(("attention", given.latents, given.latents))
    for place, (inputs, outputs) in enumerate(steps):
        last = place == len(steps) - 1
        if given.transforms == "SwinT":
            parts.append(("swin up", inputs, outputs, 0, given.depths[-1 - place], TRANSFORM_WINDOW))
            continue
        parts.append(("up", inputs, outputs, KERNEL))
        if last:
            continue
        if given.transforms == "Conv":
            parts.append(("inverse gdn", outputs, outputs))
            continue
        if place == 1 and given.attention[0]:
            parts.append(("attention", outputs, outputs))
        parts += [("residual", outputs, outputs)] * given.residual_blocks
    return _numbered("synthesis", parts)


def hyper_analysis_parts(given: Configuration) -> list[Part]:
    """Latents to side information."""
    latents, width = given.latents, given.hyper_width
    if given.hyper_transforms == "Conv":
        relu, down = ("relu", width, width), ("down", width, width, KERNEL)
        return _numbered("hyper_analysis", [("same", latents, width, 3), relu, down, relu, down])
    first, second = given.hyper_depths
    return _numbered(
        "hyper_analysis",
        [("swin down", latents, width, 0, first, HYPER_WINDOW), ("swin down", width, width, 0, second, HYPER_WINDOW)],
    )


def hyper_synthesis_parts(given: Configuration) -> list[Part]:
    """Side information to features."""
    width, features = given.hyper_width, given.features
    if given.hyper_transforms == "Conv":
        first, second = given.hyper_widths
        parts: list[_Rest] = [("up", width, first, KERNEL), ("relu", first, first), ("up", first, second, KERNEL)]
        return _numbered("hyper_synthesis.0", [*parts, ("relu", second, second), ("same", second, features, 3)])
    first, second = given.hyper_depths
    return _numbered(
        "hyper_synthesis.0",
        [("swin up", width, width, 0, second, HYPER_WINDOW), ("swin up", width, features, 0, first, HYPER_WINDOW)],
    )


class Step(NamedTuple):
    """A channel-wise step: its `distribution`, the prediction of what rounding took (`residual`) and how that is merged
    (`merge`); the latter two may be empty."""

    distribution: list[Part]
    residual: list[Part]
    merge: list[Part]


def split_part(given: Configuration) -> Part | None:
    """What makes of the features those of each step, where these have their own."""
    width = given.steps * given.split_width
    return Part("same", "hyper_synthesis.1.parts", given.features, width, 1) if width else None


def step_parts(given: Configuration) -> list[Step]:
    """The channel-wise steps; none of a hyperprior, whose features are means and scales."""
    if given.entropy_model == "hyperprior":
        return []
    size = given.latents // given.steps
    out = []
    for step in range(given.steps):
        known = (given.split_width or given.features) + step * size
        residual = _perceptron(f"entropy_model.residuals.{step}", (known + size, *given.residual_widths, size))
        merge = [Part("same", f"entropy_model.merges.{step}", 2 * size, size, 3)]
        out.append(
            Step(
                _perceptron(f"entropy_model.distributions.{step}", (known, *given.step_widths, 2 * size)),
                residual if given.residual_widths else [],
                merge if given.merged and given.residual_widths else [],
            )
        )
    return out


def _perceptron(name: str, sizes: Sequence[int]) -> list[Part]:
    parts: list[_Rest] = []
    for inputs, outputs in pairwise(sizes):
        parts += [("same", inputs, outputs, 3), ("gelu", outputs, outputs)]
    return _numbered(name, parts[:-1])


def float_layers(given: Configuration) -> list[Tensors]:
    """The layers whose numbers are floats: of the transforms, and what only an encoder needs."""
    parts = [*analysis_parts(given), *synthesis_parts(given), *hyper_analysis_parts(given)]
    return [layer for part in parts for layer in tensors_of(part)]


def integer_layers(given: Configuration) -> list[Tensors]:
    """The layers whose numbers are integers: all that decides on code tables."""
    split = split_part(given)
    parts = [*hyper_synthesis_parts(given), *([split] if split else [])]
    for step in step_parts(given):
        parts += [*step.distribution, *step.residual, *step.merge]
    return [layer for part in parts for layer in tensors_of(part)]
