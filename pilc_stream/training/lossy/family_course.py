"""How far a training of the family has come, in whole payloads: rate and PSNR of a folder of images by checkpoint.

``python -m pilc_stream.training.lossy.family_course RECORD IMAGES CHECKPOINT...`` measures and writes the record, or
adds to the one that is there; its table `family.py` puts into `FAMILY.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pilc_stream._version import __version__
from pilc_stream.backends.lossy.family import open_family_engine
from pilc_stream.codecs.lossy import LossyCodec, payload_psnr
from pilc_stream.errors import UsageError
from pilc_stream.models.family import FamilyModel
from pilc_stream.training.lossy.family_export import export_checkpoint

RECORD = Path(__file__).with_name("family_course.json")


def measured_payloads(model: FamilyModel, images: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> dict[str, float]:
    """Means over the images: bits per pixel of payloads, and dB as their encoder measured them."""
    payloads = LossyCodec(model, open_family_engine("cpu")).encode(images)
    rates = [8 * len(each) / (image.shape[0] * image.shape[1]) for each, image in zip(payloads, images, strict=True)]
    decibels = [payload_psnr(each) for each in payloads]
    return {"bpp": round(float(np.mean(rates)), 4), "psnr": round(float(np.mean(decibels)), 3)}


def measured_course(folder: Path, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """The record: checkpoints in order of their steps. Raises UsageError where there is no image."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise UsageError(f"{folder}: there is no PNG image in it; name a folder with some")
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    points = []
    for path in checkpoints:
        model = export_checkpoint(path)
        points.append(
            {
                "step": model.recipe["steps_done"],
                "training_seconds": model.recipe["seconds"],
                **measured_payloads(model, images),
            }
        )
    return {
        "recipe": model.recipe["recipe"],
        "model_bytes": len(model.file_bytes),
        "images": len(images),
        "set": folder.name,
        "points": joined([], points),
        "versions": {"pilc-stream": __version__},
        "date": datetime.now(UTC).date().isoformat(),
    }


def joined(known: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points by step, those found in place of known ones."""
    by_step = {point["step"]: point for point in (*known, *found)}
    return [by_step[step] for step in sorted(by_step)]


def course_table(record: Mapping[str, Any]) -> str:
    """Markdown: rate and PSNR by step."""
    recipe = record["recipe"]
    heads = ["model", "trade-off", "steps", f"bits per pixel, {record['set']} ({record['images']})", "PSNR, dB"]
    rows = [heads, ["---"] * len(heads)]
    for point in record["points"]:
        cells = [f"`lossy-{recipe['member']}`", f"{recipe['tradeoff']:g}", f"{point['step']:,}"]
        rows.append([*cells, f"{point['bpp']:.3f}", f"{point['psnr']:.2f}"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def main() -> None:
    """Measure and write the record."""
    record, folder, *checkpoints = map(Path, sys.argv[1:])
    found = measured_course(folder, checkpoints)
    if record.exists():
        found["points"] = joined(json.loads(record.read_text())["points"], found["points"])
    record.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
