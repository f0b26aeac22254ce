"""Swin transformer stages (Liu 2021) as the transforms use them: merging or splitting of patches, then blocks.

Tokens are channels-last float `(n, h, w, channels)` inside, `(n, channels, h, w)` at the borders of a stage.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_CHANNELS = 32
MLP_FACTOR = 4
MASKED = -100.0
"""Added to the logarithm of the attention between tokens that the cyclic shift brought together."""


class WindowAttention(nn.Module):
    """Attention within windows of `window` x `window` tokens, shifted by half a window or not."""

    position: Tensor

    def __init__(self, channels: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2 if shifted else 0
        self.heads = max(1, channels // HEAD_CHANNELS)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.position_bias = nn.Parameter(torch.zeros(self.heads, (2 * window - 1) ** 2))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("position", apart[0] * (2 * window - 1) + apart[1], persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attended tokens, of the same shape; the last rows and columns are filled up to whole windows with zeros."""
        height, width = tokens.shape[1:3]
        window = self.window
        padded = functional.pad(tokens, (0, 0, 0, -width % window, 0, -height % window))
        shift = self.shift if min(padded.shape[1:3]) > window else 0
        if shift:
            padded = torch.roll(padded, (-shift, -shift), (1, 2))
        number, tall, wide, channels = padded.shape
        cells = (number, tall // window, window, wide // window, window, channels)
        windows = padded.reshape(cells).transpose(2, 3).reshape(-1, window * window, channels)
        attended = self._attend(windows, _mask(tall, wide, window, shift, tokens.device) if shift else None)
        out = attended.reshape(number, tall // window, wide // window, window, window, channels).transpose(2, 3)
        out = out.reshape(padded.shape)
        if shift:
            out = torch.roll(out, (shift, shift), (1, 2))
        return out[:, :height, :width]

    def _attend(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        count, tokens, channels = windows.shape
        each = (count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = self.query_key_value(windows).reshape(each).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) * (channels // self.heads) ** -0.5
        scores = scores + self.position_bias[:, self.position]
        if mask is not None:
            scores = (scores.reshape(-1, len(mask), *scores.shape[1:]) + mask[:, None]).reshape(scores.shape)
        mixed = scores.softmax(-1) @ value
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(count, tokens, channels))
        return attended


def _mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """`(windows, tokens, tokens)`: `MASKED` between tokens of different sides of the border that the shift moved."""

    def sides(length: int) -> Tensor:
        places = torch.arange(length, device=device)
        return (places >= length - window).int() + (places >= length - shift).int()

    region = 3 * sides(height)[:, None] + sides(width)
    cells = region.reshape(height // window, window, width // window, window).transpose(1, 2)
    flat = cells.reshape(-1, window * window)
    return torch.where(flat[:, None] == flat[:, :, None], 0.0, MASKED)


class SwinBlock(nn.Module):
    """Window attention and a perceptron of two layers, each normalised before and added to what came in."""

    def __init__(self, channels: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.before_attention, self.before_perceptron = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, window, shifted)
        hidden = MLP_FACTOR * channels
        self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of the same shape."""
        tokens = tokens + self.attention(self.before_attention(tokens))
        changed: Tensor = self.perceptron(self.before_perceptron(tokens))
        return tokens + changed


def swin_blocks(channels: int, depth: int, window: int) -> nn.Sequential:
    """`depth` blocks, every second one shifted."""
    return nn.Sequential(*(SwinBlock(channels, window, bool(i % 2)) for i in range(depth)))


class SwinDown(nn.Module):
    """Patches of 2 x 2 merged by a linear map, then blocks."""

    def __init__(self, inputs: int, channels: int, depth: int, window: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(4 * inputs)
        self.merge = nn.Linear(4 * inputs, channels)
        self.blocks = swin_blocks(channels, depth, window)

    def forward(self, values: Tensor) -> Tensor:
        """`(n, inputs, h, w)` to `(n, channels, h/2, w/2)`; h and w are even."""
        tokens = functional.pixel_unshuffle(values, 2).permute(0, 2, 3, 1)
        out: Tensor = self.blocks(self.merge(self.normalise(tokens))).permute(0, 3, 1, 2)
        return out


class SwinUp(nn.Module):
    """Blocks, then each token split into 2 x 2 by a linear map."""

    def __init__(self, channels: int, outputs: int, depth: int, window: int) -> None:
        super().__init__()
        self.blocks = swin_blocks(channels, depth, window)
        self.normalise = nn.LayerNorm(channels)
        self.split = nn.Linear(channels, 4 * outputs)

    def forward(self, values: Tensor) -> Tensor:
        """`(n, channels, h, w)` to `(n, outputs, 2h, 2w)`."""
        tokens = self.split(self.normalise(self.blocks(values.permute(0, 2, 3, 1))))
        return functional.pixel_shuffle(tokens.permute(0, 3, 1, 2), 2)
