"""Any image, any input: how files of all modes fare, by group, against PNG and lossless WebP.

``python -m pilc_stream.reports.variety FOLDER``: each folder below FOLDER is a group. Every file is coded as a job
would, decoded again, and compared with what Pillow makes of it: pixels, mode and the metadata that affects display; or
it keeps its bytes. Sizes are of whole files: payloads with metadata, PNG written by Pillow with its strongest settings
and the same metadata, WebP without metadata. Of files that are kept, broken or not, all three are the source's size, or
where Pillow reads them, what it writes.
"""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pilc_stream.codecs import Codec, Decoder, open_codec
from pilc_stream.errors import ImageError
from pilc_stream.images import NotRepresentable, Pixels, decode_image, encode_png, picture
from pilc_stream.records.payload import parse_header

SOURCE = "source"
METADATA = ("icc_profile", "exif", "gamma", "chromaticity", "srgb", "xmp", "transparency")
"""What Pillow tells of a file that changes how it is shown."""

WEBP_MODES = ("L", "LA", "RGB", "RGBA", "P", "1")
WEBP_EDGE = 16383


@dataclass(slots=True)
class Group:
    """Sums over a group's files. `won`: records by codec; `lines`: files that failed, or differ, with the reason."""

    name: str
    files: int = 0
    source_bytes: int = 0
    png_bytes: int = 0
    webp_bytes: int = 0
    our_bytes: int = 0
    won: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def measure(folder: Path, codec: Codec, decoder: Decoder) -> Iterator[Group]:
    """The groups below `folder`, one after the other."""
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        group = Group(below.name)
        for path in sorted(below.iterdir()):
            _measure(path, codec, decoder, group)
        yield group


def _measure(path: Path, codec: Codec, decoder: Decoder, group: Group) -> None:
    data = path.read_bytes()
    group.files += 1
    group.source_bytes += len(data)
    try:
        pixels = decode_image(data)
    except ImageError as error:
        if not isinstance(error, NotRepresentable):
            group.lines.append(f"{group.name}/{path.name}: {error}")
        _add(group, SOURCE, len(data), len(data), len(data))
        return
    [payload] = codec.encode([pixels.array], [pixels.extras or None])
    [array] = decoder.decode([payload])
    again = Pixels(array, pixels.mode, decoder.extras(payload))
    if fault := difference(data, pixels, again):
        group.lines.append(f"{group.name}/{path.name}: {fault}")
    chosen = parse_header(payload).codec if len(payload) <= len(data) else SOURCE
    png = len(encode_png(pixels, optimize=True))
    _add(group, chosen, min(len(payload), len(data)), png, _webp_bytes(pixels) or png)


def _add(group: Group, chosen: str, ours: int, png: int, webp: int) -> None:
    group.won[chosen] += 1
    group.our_bytes += ours
    group.png_bytes += png
    group.webp_bytes += webp


def difference(data: bytes, wanted: Pixels, found: Pixels) -> str | None:
    """What is not as Pillow has it after a payload was decoded; None where all is."""
    if found.array.dtype != wanted.array.dtype or not np.array_equal(found.array, wanted.array):
        return "other pixels than were coded"
    with Image.open(io.BytesIO(data)) as source, Image.open(io.BytesIO(encode_png(found))) as shown:
        source.load()
        shown.load()
        ours = picture(found)
        # Pillow has no grey with alpha of 16 bits: it shows such a file as RGBA.
        if ours.mode != source.mode and not (found.mode == "LA" and found.array.itemsize == 2):
            return f"mode {ours.mode} instead of {source.mode}"
        if not np.array_equal(np.asarray(shown, np.int64), np.asarray(source, np.int64)):
            return "other pixels than Pillow shows"
        for name in METADATA:
            # A TIFF has no EXIF block: its describing tags become one.
            if source.info.get(name) != shown.info.get(name) and (name, source.format) != ("exif", "TIFF"):
                return f"other metadata: {name}"
        # PNG counts pixels per metre, so another format's dots per inch are rounded to that.
        dpi = [[float(each) for each in image.info.get("dpi", ())] for image in (source, shown)]
        if dpi[0] and all(dpi[0]) and not np.allclose(dpi[0], dpi[1] or [0, 0], rtol=0, atol=0.0254):
            return "other metadata: dpi"
    return None


def _webp_bytes(pixels: Pixels) -> int:
    """The size as lossless WebP; 0 where it holds no such image."""
    height, width = pixels.array.shape[:2]
    if pixels.mode not in WEBP_MODES or pixels.array.dtype != np.uint8 or max(height, width) > WEBP_EDGE:
        return 0
    image = picture(pixels)
    if image.mode in ("P", "1"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, quality=100, method=4, exact=True)
    return len(buffer.getvalue())


def report(groups: Sequence[Group]) -> str:
    """A Markdown table of the groups and their sum, then the lines."""
    rows = [_row(group) for group in groups]
    whole = Group("all")
    for group in groups:
        whole.files += group.files
        whole.source_bytes += group.source_bytes
        whole.won += group.won
        whole.png_bytes += group.png_bytes
        whole.webp_bytes += group.webp_bytes
        whole.our_bytes += group.our_bytes
    head = ["group", "files", "source", "PNG", "WebP", "ours", "of PNG", "of WebP", "by"]
    table = [head, ["---"] * len(head), *rows, _row(whole)]
    lines = [line for group in groups for line in group.lines]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *(lines or ["No file failed."])])


def _row(group: Group) -> list[str]:
    sizes = (group.source_bytes, group.png_bytes, group.webp_bytes, group.our_bytes)
    shares = (f"{100 * group.our_bytes / max(1, each):.1f} %" for each in (group.png_bytes, group.webp_bytes))
    won = ", ".join(f"{name} {count}" for name, count in group.won.most_common())
    return [group.name, str(group.files), *(f"{size:,}" for size in sizes), *shares, won]


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    groups = []
    for group in measure(arguments.folder, open_codec(arguments.profile, arguments.device), Decoder(arguments.device)):
        groups.append(group)
        print(f"{group.name}: {group.our_bytes:,} of {group.png_bytes:,}", file=sys.stderr, flush=True)
    print(report(groups))


if __name__ == "__main__":
    main()
