"""The rate-distortion-computation report as Markdown: its tables one by one, and the whole of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pilc_stream.reports.lossy_curves import Curve, psnr_at
from pilc_stream.reports.lossy_report import CODER, DECODER_PARTS, RATES, LossyReport, ModelTime, SetCurves
from pilc_stream.reports.machine import machine_name

PLOT = "lossy"
TABLE_RATES = (0.15, 0.25, 0.5, 0.75, 1.0, 1.5)


def lossy_rates_table(report: LossyReport) -> str:
    """PSNR at some rates, of profiles, peers and published codecs."""
    heads = ["images", "codec", *(f"{rate:g} bpp" for rate in TABLE_RATES)]
    rows = []
    for each in report.sets:
        for curve in (*each.profiles, *each.peers, *each.published):
            found = [psnr_at(curve, rate) for rate in TABLE_RATES]
            cells = [f"{psnr:.2f}" if psnr is not None else "" for psnr in found]
            rows.append([f"{each.name} ({each.images})", _heading(each, curve), *cells])
    return _table(heads, rows)


def lossy_savings_table(report: LossyReport) -> str:
    """Bjontegaard rate savings of profiles and peers, in per cent: all shared PSNR, and in the range of rates."""
    blocks = []
    for each in report.sets:
        curves = (*each.profiles, *each.peers)
        others = [curve.name for curve in (*each.peers, *each.published)]
        heads = [f"{each.name} ({each.images})", "where", *(f"against {name}" for name in others)]
        rows = []
        for curve in curves:
            for label, savings in (
                ("everywhere", each.savings),
                (f"{RATES[0]:g} to {RATES[1]:g} bpp", each.savings_in_range),
            ):
                against = savings[curve.name]
                rows.append([_heading(each, curve), label, *(_percent(against.get(name)) for name in others)])
        blocks.append(_table(heads, rows))
    return "\n".join(blocks)


def lossy_models_table(report: LossyReport) -> str:
    """The table of the paper, ours: parts, parameters, operations, megapixels per second on each device."""
    models: dict[str, dict[str, ModelTime]] = {}
    for each in report.devices:
        for model in each.models:
            models.setdefault(model.name, {})[each.device] = model
    devices = [each.device for each in report.devices]
    heads = ["model", "transforms, entropy model, hyper transforms", "M parameters", "decoder kFLOP/px"]
    heads += [f"MP/s on {device}, without / with coder" for device in devices]
    heads += ["MP/s in the paper on V100 / A100, without coder", "saving against BPG in the paper"]
    rows = []
    for name, times in models.items():
        model = next(iter(times.values()))
        row = [f"`{name}`", ", ".join(model.parts), f"{model.parameters / 1e6:.2f}", f"{model.decoder_kflop:.1f}"]
        row += [_speeds(times.get(device)) for device in devices]
        published = model.published
        row.append(" / ".join(f"{speed:g}" for speed in published["mp_per_s"]) if published else "")
        row.append(f"{published['saved_percent']:.1f} %" if published else "")
        rows.append(row)
    return _table(heads, rows)


def lossy_times_table(report: LossyReport) -> str:
    """Operations and time of every part, a table for each device."""
    blocks = []
    for each in report.devices:
        heads = ["model", *(f"{name}, kFLOP/px" for name in DECODER_PARTS.values())]
        heads += [f"{name}, ms/MP" for name in (*DECODER_PARTS.values(), CODER)]
        rows = [
            [
                f"`{model.name}`",
                *(f"{model.kflop[part]:.1f}" for part in DECODER_PARTS),
                *(
                    short(1000 * model.seconds_per_mp[part]) if part in model.seconds_per_mp else ""
                    for part in (*DECODER_PARTS, CODER)
                ),
            ]
            for model in each.models
        ]
        blocks.append(f"On {each.device}, {each.date}:\n\n{_table(heads, rows)}")
    return "\n".join(blocks)


def lossy_course_table(courses: Sequence[Mapping[str, Any]]) -> str:
    """How far trainings got: held-out rate and PSNR by steps."""
    heads = ["model", "trade-off", "step", "loss", "bits per pixel held out, estimated", "PSNR held out, dB", "minutes"]
    rows = [
        [
            f"`lossy-{course['recipe']['member']}`",
            f"{course['recipe']['tradeoff']:g}",
            f"{at['step']:,}",
            f"{at['loss']:.3f}",
            f"{at['bpp']:.3f}",
            f"{at['psnr']:.2f}",
            f"{at['seconds'] / 60:.0f}",
        ]
        for course in courses
        for at in course["course"]
    ]
    return _table(heads, rows)


def whole_lossy_report(report: LossyReport) -> str:
    """The Markdown file."""
    blocks = [
        "# The rate-distortion-computation frontier",
        "Lossy: pixels change. Rates are bits per pixel of whole files with all overhead, PSNR that of 8-bit RGB, both "
        "means over the images of a set.",
        f"![Rate against distortion, computation against time]({PLOT}.png)",
        "## Rate and distortion",
        "PSNR in dB at some rates, interpolated on each curve; an empty cell lies outside of what was measured.",
        lossy_rates_table(report),
        "Rate saved for the same PSNR (Bjontegaard; the logarithm of the rate as a monotone piecewise cubic of PSNR), "
        f"where both curves reach, and where the other codec takes {RATES[0]:g} to {RATES[1]:g} bits per pixel. "
        "A minus sign is a loss.",
        lossy_savings_table(report),
        f"Published curves: {report.anchors_source}.",
        "\n".join(f"- {name}: {version}." for name, version in report.settings.items()),
        "## Computation and time",
        "Decoding. One multiply-accumulate counts as two operations (FLOP). Networks run in float32, one picture of "
        "768 x 512 at a time; on a CPU the times are CPU seconds of one thread. Members of the family have no coder of "
        "their own here: theirs is the time that `lossy-light`'s coder takes for as many latents.",
        lossy_models_table(report),
        lossy_times_table(report),
        *(
            [
                "## How far trainings got",
                "What was trained of the family on the machine at hand; loss is bits per pixel plus trade-off times "
                "squared error. The members have the published sizes, not yet the published rates.",
                lossy_course_table(report.courses),
                *(course["about"] for course in report.courses if "about" in course),
            ]
            if report.courses
            else []
        ),
        "## Machines",
        "\n".join(f"- {machine_name(facts)}, {facts['date']}: `{facts['command']}`." for facts in report.machines),
    ]
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _heading(each: SetCurves, curve: Curve) -> str:
    return f"`{curve.name}`" if curve in each.profiles else curve.name


def _speeds(model: ModelTime | None) -> str:
    if model is None:
        return ""
    speeds = (model.mp_per_s(False), model.mp_per_s(True))
    return " / ".join("not timed" if speed is None else short(speed) for speed in speeds)


def short(value: float) -> str:
    """Three digits, as many as a timing is worth; all digits of what is larger."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
