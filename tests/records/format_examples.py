"""Writes the worked examples of FORMAT.md: ``python tests/records/format_examples.py``.

The payloads come from the reference backend; their explanation comes from the schoolbook decoder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

# What pytest finds by its `pythonpath` setting.
sys.path.extend(str(Path(__file__).resolve().parents[1] / room) for room in ("codecs", "oracle"))

import schoolbook
from small_model import small_model

from pilc_stream.backends.reference import ReferenceEngine
from pilc_stream.codecs.raw import RawCodec
from pilc_stream.codecs.wave import WaveCodec

DOCUMENT = Path(__file__).resolve().parents[2] / "pilc_stream" / "records" / "FORMAT.md"
EXTRAS = b"note"
SHOWN_SYMBOLS = 9
"""Symbols of the wave example that the document follows one by one."""


def raw_image() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """uint16 (2, 3)."""
    return np.array([[0, 1, 256], [1000, 40000, 65535]], np.uint16)


def wave_image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8 (3, 4, 3): a gentle slope, one pixel off it."""
    y, x = np.mgrid[:3, :4]
    pixels = np.stack([124 + x + y, 130 + 2 * x - y, 120 + x], axis=2)
    pixels[1, 2] = (120, 134, 127)
    return pixels.astype(np.uint8)


def raw_example() -> str:
    """The block of the `raw` example."""
    image = raw_image()
    payload = RawCodec().encode([image], [EXTRAS])[0]
    picture = schoolbook.decode(payload)
    return "\n".join(
        [
            f"The samples `{image.tolist()}`, 16 bits, two axes, with the extras `{EXTRAS.decode()}`:",
            "",
            *_bytes_table(payload, picture.fields),
        ]
    )


def wave_example() -> str:
    """The block of the `wave` example."""
    model = small_model()
    codec = WaveCodec(model, ReferenceEngine(), tile_log2=4)
    payload = codec.encode([wave_image()])[0]
    symbols: list[dict[str, Any]] = []
    picture = schoolbook.decode(payload, model.file_bytes, symbols.append)
    shown = symbols[:SHOWN_SYMBOLS]
    last = shown[-1]
    return "\n".join(
        [
            f"The SHA-256 of the model file: `{model.sha256}`.",
            "The RGB pixels, row by row:",
            "",
            "```",
            *(" ".join(f"({r:3}, {g:3}, {b:3})" for r, g, b in row) for row in wave_image().tolist()),
            "```",
            "",
            *_bytes_table(payload, picture.fields),
            "",
            f"The first {len(shown)} of {len(symbols)} symbols; there is one lane. `state` is its state before the "
            "symbol, `word` the word taken behind it.",
            "",
            "| y, x | c | base | e | mean | scale | row | centre | start | state | symbol | word | pixel |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
            *(_symbol_row(symbol) for symbol in shown),
            "",
            f"The inputs of the pixel `({last['y']}, {last['x']})`:",
            "",
            "```",
            *_wrapped(last["inputs"]),
            "```",
        ]
    )


def updated(document: str) -> str:
    """The document with its examples as they are now."""
    for name, text in (("raw", raw_example()), ("wave", wave_example())):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        document, count = pattern.subn(lambda _, b=begin, e=end, t=text: f"{b}\n{t}\n{e}", document)
        if count != 1:
            raise ValueError(f"{DOCUMENT.name} has {count} places for the example {name!r}")
    return document


def payload_of(document: str, name: str) -> bytes:
    """The bytes of an example, read from the document's table."""
    block = document.split(f"<!-- begin {name} -->")[1].split(f"<!-- end {name} -->")[0]
    return b"".join(bytes.fromhex(cell) for cell in re.findall(r"^\| \d+ \| `([0-9a-f ]+)` \|", block, re.MULTILINE))


def _bytes_table(payload: bytes, fields: list[tuple[int, int, str]]) -> list[str]:
    rows = [f"| {begin} | `{payload[begin:end].hex(' ')}` | {what} |" for begin, end, what in fields]
    return ["| offset | bytes | content |", "|---|---|---|", *rows]


def _symbol_row(symbol: dict[str, Any]) -> str:
    word = "" if symbol["word"] is None else f"`{symbol['word']:04x}`"
    cells = [f"{symbol['y']}, {symbol['x']}", *(symbol[key] for key in ("channel", "base", "e", "mean", "scale"))]
    cells += [symbol["row"], symbol["centre"], symbol["start"], f"`{symbol['state']:08x}`", symbol["symbol"], word]
    return "| " + " | ".join(str(cell) for cell in [*cells, symbol["pixel"]]) + " |"


def _wrapped(values: list[int], per_line: int = 14) -> list[str]:
    return [" ".join(f"{value:4}" for value in values[i : i + per_line]) for i in range(0, len(values), per_line)]


if __name__ == "__main__":
    DOCUMENT.write_text(updated(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
