from __future__ import annotations

import numpy as np
import pytest

from pilc_stream.errors import VerifyError
from pilc_stream.reports.race import BASELINE, SET_BYTES, Racer, part_of, race, race_peers
from pilc_stream.reports.sets import ImageSet

IMAGE = (np.add.outer(np.arange(24) ** 2, 5 * np.arange(36))[:, :, None] // np.array([3, 4, 5]) % 256).astype(np.uint8)
SET = ImageSet("two", [IMAGE, IMAGE[::-1]], 0)


def quiet(_: str) -> None:
    pass


def test_all_codecs_run_on_the_same_images_and_png_is_the_measure() -> None:
    values, text = race_peers([SET], ["fast"], 2, 1, quiet)
    codecs = {codec["codec"]: codec for codec in values["race"][0]["codecs"]}
    assert list(codecs) == [
        "fast",
        BASELINE,
        "QOI",
        "WebP",
        "JPEG XL e1",
        "JPEG XL e3",
        "JPEG XL e7",
        "JPEG-LS",
        "HTJ2K",
    ]
    assert values["race"][0]["raw_bytes"] == 2 * IMAGE.nbytes
    for codec in codecs.values():
        assert codec["bpsp"] > 0
        assert all(codec[f"{way}_mb_per_s"][count] > 0 for way in ("encode", "decode") for count in ("1", "2"))
    ratios = {one["codec"]: one for one in values["against_png"]}
    assert ratios[BASELINE] == {"set": "two", "codec": BASELINE, "encode": 1.0, "decode": 1.0, "size": 1.0}
    assert ratios["QOI"]["size"] == round(codecs["QOI"]["bpsp"] / codecs[BASELINE]["bpsp"], 4)
    assert text.splitlines()[-len(codecs) - 1].startswith("on one core, against PNG")


def test_a_codec_that_changes_pixels_is_refused() -> None:
    wrong = Racer("wrong", lambda images, threads: [b"1"] * len(images), lambda files, threads: [IMAGE] * len(files))
    with pytest.raises(VerifyError, match="two: wrong does not give the pixels back"):
        race(SET, [wrong], [1], 1, quiet)


def test_a_quick_measurement_is_repeated_and_a_set_is_cut_to_whole_images() -> None:
    right = Racer("right", lambda images, threads: [b"1", b"2"], lambda files, threads: [*SET.images])
    (result,) = race(SET, [right], [1], 3, quiet)
    assert [len(spent) for spent in result.seconds.values()] == [3, 3]
    large = np.zeros((SET_BYTES // 6 + 1, 2, 3), np.uint8)
    assert len(part_of(ImageSet("large", [large, large], 0)).images) == 1
    assert len(part_of(SET).images) == 2
