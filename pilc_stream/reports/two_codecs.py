"""The page that compares the codecs `pilc` and `wave`: rate, products, where bits and time go, and when to use which.

``python -m pilc_stream.reports.two_codecs DATA...`` codes each set with the profile `pilc` on one CPU thread, records
the figures in `measured/pilc.json` and writes `measured/pilc.md`, with those of the wave codec from the recorded
frontier of the same sets; without DATA it writes the page anew from the record.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pilc_stream.backends.base import STATE_BYTES
from pilc_stream.backends.pilc.cpu import PilcCpuEngine, Program, code_tile, distributions
from pilc_stream.codecs.pilc import PilcCodec, PilcDecoder
from pilc_stream.errors import VerifyError
from pilc_stream.models.pilc import PilcModel, load_pilc_model
from pilc_stream.models.shipped import preset_bytes
from pilc_stream.records.payload import parse_payload
from pilc_stream.reports.machine import machine_facts
from pilc_stream.reports.paper_table import GOAL, Row, card_rows, cpu_row, fused_cpu_row, table, time_table
from pilc_stream.reports.sets import ImageSet, load_set

MEASURED = Path(__file__).with_name("measured")
RECORD, PAGE = MEASURED / "pilc.json", MEASURED / "pilc.md"
BATCH_SAMPLES = 1 << 20
PNG = "PNG"
WAVES = ("fast", "default", "high", "max")
TABLE_SET = "kodak"
"""The set whose measured rates stand in the paper's table."""


def measure(image_set: ImageSet, model: PilcModel) -> dict[str, Any]:
    """Rate and CPU seconds of a set, and where its bits and the encoder's time go. VerifyError for changed pixels."""
    engine = PilcCpuEngine()
    codec, decoder, program = PilcCodec(model, engine), PilcDecoder(model, engine), Program(model)
    payload_bytes, residual_bits, seconds = 0, 0.0, dict.fromkeys(("encode", "decode", "choices", "network"), 0.0)
    overhead_bytes, coded_bytes = 0, 0
    for images in _batches(image_set):
        start = time.thread_time()
        payloads = [parse_payload(payload) for payload in codec.encode(images)]
        seconds["encode"] += time.thread_time() - start
        start = time.thread_time()
        own = [payload for payload in payloads if payload.header.codec == codec.name]
        decoded = iter(decoder.decode(own, [None] * len(own)))
        seconds["decode"] += time.thread_time() - start
        for image, payload in zip(images, payloads, strict=True):
            tile_bytes = sum(map(len, payload.tiles))
            whole = len(codec.encode([image])[0]) if payload.header.codec != codec.name else _length(payload)
            payload_bytes += whole
            if payload.header.codec != codec.name:
                continue
            if not np.array_equal(next(decoded), image):
                raise VerifyError(f"set {image_set.name}: an image came back changed; keep it and report it")
            states = len(payload.tiles) * STATE_BYTES << payload.header.lanes_log2
            overhead_bytes += whole - tile_bytes + states
            coded_bytes += tile_bytes - states
            three_axes = image.reshape(*image.shape[:2], -1)
            for y, x, height, width in payload.header.tiling.tiles():
                start = time.thread_time()
                coding = code_tile(program, three_axes[y : y + height, x : x + width])
                seconds["choices"] += time.thread_time() - start
                start = time.thread_time()
                (rows, centres), *_ = distributions(program, [coding.choices], height, width)
                seconds["network"] += time.thread_time() - start
                coded = len(coding.residuals)
                symbols = (coding.residuals - centres[:coded] + 128) & 255
                residual_bits += _bits(model, rows[:coded], symbols)
    raw = image_set.raw_bytes
    return {
        "set": image_set.name,
        "sha256": image_set.sha256(),
        "images": len(image_set.images),
        "raw_bytes": raw,
        "payload_bytes": payload_bytes,
        "indices_bytes": round(coded_bytes - residual_bits / 8),
        "residual_bytes": round(residual_bits / 8),
        "overhead_bytes": overhead_bytes,
        "cpu_seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _length(payload: Any) -> int:
    # What `parse_payload` took apart: the last tile's checksum is the end.
    return len(payload.tiles[-1].obj)


def _bits(model: PilcModel, rows: Any, symbols: Any) -> float:
    starts = np.append(model.cdf.astype(np.int64), np.full((len(model.cdf), 1), 1 << 16), axis=1)
    frequencies = starts[rows, symbols.astype(np.int64) + 1] - starts[rows, symbols]
    return float((16 - np.log2(frequencies)).sum())


def _batches(image_set: ImageSet) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for image in image_set.images:
        batch.append(image)
        if sum(each.size for each in batch) >= BATCH_SAMPLES:
            yield batch
            batch = []
    if batch:
        yield batch


def recorded_figures(digest: str) -> dict[str, Mapping[str, Any]]:
    """What the recorded frontier holds of other codecs on the set of that digest, on one CPU thread."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(MEASURED.glob("frontier-*.json")):
        document = json.loads(path.read_text())
        if document["sha256"] == digest:
            for run in document["runs"]:
                for figures in (*run.get("peers", []), *run["profiles"]):
                    if (figures["device"], figures["threads"]) == ("cpu", 1):
                        found[figures.get("peer") or figures["profile"]] = figures
    return found


def table_rows(record: Mapping[str, Any], waves: Sequence[str]) -> list[Row]:
    """The rows of the paper's table: measured on the CPU on `TABLE_SET` (else the first set), predicted for cards."""
    sets = {found["set"]: found for found in record["sets"]}
    found = sets.get(TABLE_SET, record["sets"][0])
    device = f"CPU, one thread, {found['set']}"
    rows = [cpu_row("pilc", device, found["cpu_seconds"], found["raw_bytes"])]
    others = recorded_figures(found["sha256"])
    for wave in waves:
        if wave in others:
            rows.append(fused_cpu_row(wave, device, (others[wave]["encode_mb_per_s"], others[wave]["decode_mb_per_s"])))
    return rows + card_rows(("pilc", *waves))


def page(
    record: Mapping[str, Any], rates: Mapping[str, Mapping[str, float]], waves: Sequence[str], rows: Sequence[Row]
) -> str:
    """The page in Markdown. `rates`: of each set the other codecs' bits per sub-pixel; `waves`: profiles to show;
    `rows`: of the paper's table."""
    macs = record["macs_per_pixel"]
    lines = [
        "# pilc and wave", "",
        f"The profile `pilc` decodes with {sum(macs.values()):,} products a pixel ({macs['network']:,} of them in the "
        f"network). Measured on one thread of {record['machine']['cpu']}, whole payloads, pixels verified.", "",
        "Bits per sub-pixel:", "",
        "| " + " | ".join(["set", "pilc", "saved against PNG", *waves]) + " |",
        "|" + "---|" * (3 + len(waves)),
    ]  # fmt: skip
    for found in record["sets"]:
        others, bpsp = rates[found["set"]], 8 * found["payload_bytes"] / found["raw_bytes"]
        saved = f"{100 * (1 - bpsp / others[PNG]):.1f} %" if PNG in others else "not recorded"
        shown = [f"{others[wave]:.3f}" if wave in others else "not recorded" for wave in waves]
        lines.append(f"| {found['set']} | {bpsp:.3f} | {saved} | " + " | ".join(shown) + " |")
    lines += [
        "", "Where the bits go, and CPU nanoseconds a sub-pixel (`rest`: tables, rANS, undoing the prediction):", "",
        "| set | indices | residuals | overhead | encode | of it choices | network | decode | of it network | rest |",
        "|" + "---|" * 10,
    ]  # fmt: skip
    for found in record["sets"]:
        samples, total = found["raw_bytes"], found["payload_bytes"]
        shares = [f"{100 * found[f'{name}_bytes'] / total:.1f} %" for name in ("indices", "residual", "overhead")]
        spent = {name: 1e9 * value / samples for name, value in found["cpu_seconds"].items()}
        times = [spent[name] for name in ("encode", "choices", "network", "decode", "network")]
        times.append(spent["decode"] - spent["network"])
        lines.append("| " + " | ".join([found["set"], *shares, *(f"{value:.0f}" for value in times)]) + " |")
    lines += [
        "",
        "## The paper's table",
        "",
        f"PILC asks for a single image, of any size, with inference, coder and transfer at {GOAL:.0f} MB/s or more "
        "each. MB/s of raw samples in / out. Every payload decodes alone and images may have any size: the tests hold "
        "both. On the CPU the wave codec infers and codes in one loop; on a card its lanes decode in the same kernel "
        "as the network. What is predicted comes from `backends/cuda/ROOFLINE.md`: counted instructions, half of the "
        "lowest bound, inside the card; transfer is what the host's link carries. The last column stays empty until "
        "a card has been measured.",
        "",
        table(rows),
        "",
        "Where a card's time is predicted to go with `pilc` (`prediction`: trying the predictors, or undoing theirs):",
        "",
        time_table("pilc"),
        "",
        "## When to use which",
        "",
        "Use `wave` for the best rate, and where the CPU codes: it sends no indices, since every pixel's distribution "
        "comes from its decoded neighbours. Use `pilc` where what matters is decoding on a card: its network and its "
        "coder wait for no pixel, only short sums are left for the wavefront, and so it is predicted to decode faster "
        "than `fast` although its network is larger. What a mean beside the scale brings is measured in "
        "`training/EXPERIMENTS.md`.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Measure the sets named on the command line, if any, and write the record; write the page from the record."""
    if sys.argv[1:]:
        model = load_pilc_model(preset_bytes("pilc"))
        measured = {
            "machine": machine_facts(),
            "model_sha256": model.sha256,
            "macs_per_pixel": model.spec.macs_per_pixel(),
            "sets": [measure(load_set(Path(name), None), model) for name in sys.argv[1:]],
        }
        RECORD.write_text(json.dumps(measured, indent=2) + "\n")
    record = json.loads(RECORD.read_text())
    rates = {
        found["set"]: {name: figures["bpsp"] for name, figures in recorded_figures(found["sha256"]).items()}
        for found in record["sets"]
    }
    PAGE.write_text(page(record, rates, WAVES, table_rows(record, WAVES)))


if __name__ == "__main__":
    main()
