"""Any image, any input: how files of all modes fare in a data set, by group, against PNG and lossless WebP.

``pilc compress FOLDER DATASET``, then ``python -m pilc_stream.reports.variety FOLDER DATASET``: each folder below
FOLDER is a group. Every file must be a record of the data set. One that was coded is decoded and compared with what
Pillow makes of the file: pixels, mode and the metadata that affects display; any other must have kept its bytes. What
is not so is listed, and the exit status is 1. Sizes are of whole files: payloads with metadata, PNG written by Pillow
with its strongest settings and the same metadata, WebP without metadata. Of files that Pillow cannot read or that are
no single image of pixels, all three are the source's size.
"""

from __future__ import annotations

import argparse
import io
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from pilc_stream.codecs import Decoder
from pilc_stream.errors import ImageError, PilcError
from pilc_stream.images import DEFAULT_MAX_STREAMED_PIXELS, Pixels, decode_image, encode_png, picture
from pilc_stream.records.commit import read_errors
from pilc_stream.records.manifest import Manifest
from pilc_stream.records.record import SOURCE_CODEC
from pilc_stream.records.shard import ShardReader

METADATA = ("icc_profile", "exif", "gamma", "chromaticity", "srgb", "xmp", "transparency")
"""What Pillow tells of a file that changes how it is shown."""

PROSE = """\
{files} files of all kinds, in bytes: as they came, as PNG (Pillow's smallest, with the metadata; 16-bit colours by our
own writer), as lossless WebP (method 4, quality 100, without metadata; where WebP holds no such image, the PNG) and as
`pilc` keeps them with the profile `{profile}`, metadata included. Files that are broken, or no single image of pixels,
count with their own size everywhere. The {coded} that are coded were decoded again and compared with Pillow in pixels,
mode and the metadata that affects display, the other {kept} with their source's bytes; {outcome}. Measured {date} by
`pilc compress FOLDER DATASET` and `python -m pilc_stream.reports.variety FOLDER DATASET`.
"""
"""What the document says of its table."""

WEBP_MODES = ("L", "LA", "RGB", "RGBA", "P", "1")
WEBP_EDGE = 16383


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of the data set, and where its payload is."""

    codec: str
    mode: str
    reader: ShardReader
    row: int


@dataclass(slots=True)
class Group:
    """Sums over a group's files. `won`: records by codec; `faults`: files that are not as they were, with reasons."""

    name: str
    files: int = 0
    source_bytes: int = 0
    png_bytes: int = 0
    webp_bytes: int = 0
    our_bytes: int = 0
    won: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Group) -> None:
        """Add the sums of another group."""
        self.files += other.files
        self.source_bytes += other.source_bytes
        self.png_bytes += other.png_bytes
        self.webp_bytes += other.webp_bytes
        self.our_bytes += other.our_bytes
        self.won += other.won


def records_of(manifest: Manifest) -> dict[str, Stored]:
    """The records by key."""
    found = {}
    for position in range(len(manifest.shards)):
        reader = manifest.reader(position)
        columns = reader.columns(["key", "codec", "mode"]).to_pydict()
        for row, (key, codec, mode) in enumerate(zip(*columns.values(), strict=True)):
            found[key] = Stored(codec, mode, reader, row)
    return found


def failures_of(manifest: Manifest) -> list[str]:
    """A line for each file that was kept because it could not be coded: its key and the reason."""
    return [
        f"{error.key}: {error.reason}"
        for shard in manifest.shards
        for error in read_errors(manifest.store, shard.index)
    ]


def measure(folder: Path, records: Mapping[str, Stored], decoder: Decoder) -> Iterator[Group]:
    """The groups below `folder`, one after the other."""
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        group = Group(below.name)
        for path in sorted(path for path in below.rglob("*") if path.is_file()):
            key = path.relative_to(folder).as_posix()
            if fault := _measure(path.read_bytes(), records.get(key), decoder, group):
                group.faults.append(f"{key}: {fault}")
        yield group


def _measure(data: bytes, stored: Stored | None, decoder: Decoder, group: Group) -> str | None:
    """Add a file to its group; what is wrong with its record, None where nothing is."""
    group.files += 1
    group.source_bytes += len(data)
    if stored is None:
        return "is not in the data set"
    payload = stored.reader.payload(stored.row)
    group.won[stored.codec] += 1
    group.our_bytes += len(payload)
    try:
        pixels = decode_image(data, max_pixels=DEFAULT_MAX_STREAMED_PIXELS)
    except ImageError as error:
        group.png_bytes += len(data)
        group.webp_bytes += len(data)
        return None if stored.codec == SOURCE_CODEC and payload == data else f"was not kept, but {error}"
    png = len(encode_png(pixels, optimize=True))
    group.png_bytes += png
    group.webp_bytes += _webp_bytes(pixels) or png
    if stored.codec == SOURCE_CODEC:
        return None if payload == data else "was kept with other bytes"
    if len(payload) > len(data):
        return f"a payload of {len(payload)} bytes for a file of {len(data)}"
    try:
        [array] = decoder.decode([payload])
        return difference(data, pixels, Pixels(array, stored.mode, decoder.extras(payload)))
    except PilcError as error:
        return str(error)


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
        if not np.array_equal(np.asarray(shown), np.asarray(source)):
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


def report(groups: Sequence[Group], failures: Iterable[str], profile: str) -> str:
    """The document: what was done, a table of the groups and their sum, and the lines."""
    whole = Group("all")
    for group in groups:
        whole.add(group)
    faults = [line for group in groups for line in group.faults]
    head = ["group", "files", "source", "PNG", "WebP", "ours", "of PNG", "of WebP", "by"]
    table = [head, ["---"] * len(head), *map(_row, groups), _row(whole)]
    kept = whole.won[SOURCE_CODEC]
    prose = PROSE.format(
        files=whole.files,
        profile=profile,
        coded=whole.won.total() - kept,
        kept=kept,
        outcome=f"{len(faults)} are not as they must be" if faults else "none differed",
        date=datetime.now(UTC).date().isoformat(),
    )
    lines = sorted(failures)
    return "\n".join(
        [
            "# Any image, any input: sizes by group",
            "",
            textwrap.fill(prose, 120, break_on_hyphens=False, break_long_words=False),
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            *(["", "Not as they must be:", "", *(f"- {line}" for line in faults)] if faults else []),
            *(["", "Kept because they could not be coded:", "", *(f"- {line}" for line in lines)] if lines else []),
        ]
    )


def _row(group: Group) -> list[str]:
    sizes = (group.source_bytes, group.png_bytes, group.webp_bytes, group.our_bytes)
    shares = (f"{100 * group.our_bytes / max(1, each):.1f} %" for each in (group.png_bytes, group.webp_bytes))
    won = ", ".join(f"{name} {count}" for name, count in group.won.most_common())
    return [group.name, str(group.files), *(f"{size:,}" for size in sizes), *shares, won]


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="the files, in folders that are the groups")
    parser.add_argument("dataset", help="what `pilc compress` made of them")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    # `decode_image` limits what is looked at.
    Image.MAX_IMAGE_PIXELS = None
    manifest = Manifest.load(arguments.dataset)
    groups = []
    for group in measure(arguments.folder, records_of(manifest), Decoder(arguments.device, models=manifest.model_file)):
        groups.append(group)
        print(f"{group.name}: {group.our_bytes:,} of {group.png_bytes:,} bytes as PNG", file=sys.stderr, flush=True)
    print(report(groups, failures_of(manifest), str(manifest.job.get("profile", "?"))))
    sys.exit(1 if any(group.faults for group in groups) else 0)


if __name__ == "__main__":
    main()
