"""From files of all modes to a data set and its table: every file is coded as Pillow shows it, or keeps its bytes."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pilc_stream.cli import cli
from pilc_stream.images import Pixels, encode_png
from pilc_stream.reports import variety

Photo = Callable[..., NDArray[Any]]
FileOf = Callable[..., bytes]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="pilc")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def files(photo_like: Photo, file_of: FileOf) -> dict[str, bytes]:
    """Small files of all modes, some of them not to be coded and some broken."""
    grey, colour, rgba = photo_like(33, 41, None), photo_like(34, 40, 3), photo_like(24, 27, 4)
    deep = grey.astype(np.uint16) * 201 + 7
    words = PngImagePlugin.PngInfo()
    words.add_text("Title", "a test")
    palette = Image.fromarray(colour).quantize(12)
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    exif = Image.Exif()
    exif[274] = 6
    return {
        "grey/grey.png": file_of(grey),
        "grey/one-bit.png": saved(Image.fromarray(grey).convert("1"), "PNG"),
        "grey/deep.png": encode_png(Pixels(deep, "I;16")),
        "grey/deep-and-alpha.png": encode_png(Pixels(np.stack([deep, deep[::-1]], axis=2), "LA")),
        "colour/photo.png": file_of(colour, "PNG", dpi=(300, 300), exif=exif, pnginfo=words),
        "colour/photo.jpg": file_of(colour, "JPEG"),
        "colour/photo.bmp": file_of(colour, "BMP"),
        "colour/deep.png": encode_png(Pixels(colour.astype(np.uint16) * 77, "RGB")),
        "alpha/icon.png": file_of(rgba),
        "alpha/deep.png": encode_png(Pixels(rgba.astype(np.uint16) * 91, "RGBA")),
        "alpha/palette.png": saved(palette, "PNG", transparency=bytes([0, 255, 90])),
        "kept/cmyk.jpg": saved(Image.fromarray(colour).convert("CMYK"), "JPEG"),
        "kept/float.tif": saved(Image.fromarray(grey.astype(np.float32)), "TIFF"),
        "kept/two.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "kept/colour-key.png": saved(Image.fromarray(colour), "PNG", transparency=(1, 2, 3)),
        "broken/half.png": file_of(colour)[:900],
        "broken/text.png": b"no image",
    }


def written(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Path) -> tuple[int, str]:
    """Exit status and document of the report."""
    monkeypatch.setattr("sys.argv", ["variety", *map(str, arguments), "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        variety.main()
    return int(ended.value.code or 0), capsys.readouterr().out


@pytest.mark.slow
def test_every_file_is_coded_or_kept(
    tmp_path: Path,
    photo_like: Photo,
    file_of: FileOf,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    contents = files(photo_like, file_of)
    folder, dataset = written(tmp_path / "files", contents), tmp_path / "dataset"
    compressed = run("compress", folder, dataset, "--workers", "0", "--device", "cpu")
    assert compressed.exit_code == 1, compressed.output
    assert run("verify", dataset, "--device", "cpu").exit_code == 0

    status, document = printed(monkeypatch, capsys, folder, dataset)

    assert status == 0, document
    assert "none differed" in document
    assert f"| all | {len(contents)} | {sum(map(len, contents.values())):,} |" in document
    rows = {line.split("|")[1].strip(): line for line in document.splitlines() if line.startswith("| ")}
    assert "source 4 |" in rows["kept"]
    assert "source" not in rows["grey"]
    failed = [line for line in document.splitlines() if line.startswith("- ")]
    assert [line.split(": ")[0] for line in failed] == ["- broken/half.png", "- broken/text.png"]
    assert "cut short" in failed[0] or "truncated" in failed[0]
    assert "text, not an image" in failed[1]


@pytest.mark.slow
def test_what_is_not_as_it_was_is_found(
    tmp_path: Path,
    file_of: FileOf,
    photo_like: Photo,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, dataset = tmp_path / "files", tmp_path / "dataset"
    written(
        folder, {"a/one.png": file_of(photo_like(20, 21)), "a/two.jpg": file_of(photo_like(80, 90), "JPEG", quality=20)}
    )
    assert run("compress", folder, dataset, "--workers", "0", "--device", "cpu").exit_code == 0
    written(folder, {"a/one.png": file_of(photo_like(20, 21, seed=1)), "a/new.png": file_of(photo_like(9, 9))})
    (folder / "a" / "two.jpg").write_bytes(file_of(photo_like(80, 90, seed=1), "JPEG", quality=20))

    status, document = printed(monkeypatch, capsys, folder, dataset)

    assert status == 1
    assert "3 are not as they must be" in document
    assert "- a/new.png: is not in the data set" in document
    assert "- a/one.png: other pixels than were coded" in document
    assert "- a/two.jpg: was kept with other bytes" in document


@pytest.mark.slow
def test_the_odd_images(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, dataset = tmp_path / "files", tmp_path / "dataset"
    for group in ("tiny", "palette", "degenerate", "depth16", "gray", "formats", "malformed"):
        shutil.copytree(shared_data / "eval" / "odd" / group, folder / group)
    assert run("compress", folder, dataset, "--workers", "0", "--device", "cpu").exit_code == 1
    assert run("verify", dataset, "--device", "cpu").exit_code == 0

    status, document = printed(monkeypatch, capsys, folder, dataset)

    assert status == 0, document
    count = sum(path.is_file() for path in folder.rglob("*"))
    assert f"| all | {count} |" in document
    for line in document.splitlines():
        if line.startswith("| ") and " % |" in line:
            assert float(line.split("|")[7].split()[0]) <= 100, line
