from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from pilc_stream.errors import UsageError
from pilc_stream.images import decode_image
from pilc_stream.pipeline.sources import Request, open_source
from pilc_stream.pipeline.sources import arrays as arrays_module
from pilc_stream.storage import Sample, Store


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def npy(array: npt.NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def npz(**arrays: npt.NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, **arrays)
    return sink.getvalue()


def noise(*shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def read(store: Store, name: str, **request: Any) -> tuple[pa.Schema, list[Sample]]:
    source = open_source(Request((f"{store.url}/{name}",), store.storage_options, **request))
    assert source.kind == "arrays"
    return source.columns, [sample for part in source.parts() for sample in part.samples()]


@pytest.mark.parametrize("shape", [(5, 4, 6, 3), (5, 4, 6), (5, 4, 6, 1), (1, 1, 1, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pixels_of_an_npy_survive(here: Store, shape: tuple[int, ...], order: Any) -> None:
    images = noise(*shape)
    here.put("x.npy", npy(np.asarray(images, order=order)))
    columns, samples = read(here, "x.npy")
    assert columns.names == []
    assert [sample.key for sample in samples] == [f"x.npy/{number:010d}" for number in range(len(images))]
    for sample, image in zip(samples, images, strict=True):
        expected = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
        np.testing.assert_array_equal(decode_image(sample.data).array.squeeze(), expected.squeeze())


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_one_image_alone(here: Store, shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    here.put("x.npy", npy(image))
    (sample,) = read(here, "x.npy")[1]
    np.testing.assert_array_equal(decode_image(sample.data).array, image)


def test_large_arrays_are_cut_by_bytes(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays_module, "PART_BYTES", 7 * 24)
    images = noise(20, 4, 6)
    here.put("x.npy", npy(images))
    parts = list(open_source(Request((f"{here.url}/x.npy",))).parts())
    assert [part.images for part in parts] == [7, 7, 6]
    assert sum(part.size for part in parts) == images.nbytes
    third = list(parts[2].samples())
    np.testing.assert_array_equal(decode_image(third[0].data).array, images[14])
    assert len(list(parts[0].head(2).samples())) == 2


def test_arrays_of_an_npz_become_typed_columns(here: Store) -> None:
    arrays = {
        "images": noise(3, 4, 5, 3),
        "labels": np.array([1, 2, 3], np.uint8),
        "names": np.array(["a", "bc", "ü"]),
        "boxes": np.arange(12, dtype=np.float32).reshape(3, 4),
        "mode": np.array([True, False, True]),
    }
    here.put("x.npz", npz(**arrays))
    columns, samples = read(here, "x.npz")
    assert columns == pa.schema(
        [
            ("labels", pa.uint8()),
            ("names", pa.string()),
            ("boxes", pa.list_(pa.float32(), 4)),
            ("source_mode", pa.bool_()),
        ]
    )
    assert samples[2].columns == {"labels": 3, "names": "ü", "boxes": [8.0, 9.0, 10.0, 11.0], "source_mode": True}
    np.testing.assert_array_equal(decode_image(samples[1].data).array, arrays["images"][1])


def test_which_array_is_the_images_can_be_said(here: Store) -> None:
    here.put("m.npz", npz(x_train=noise(4, 2, 2), y_train=np.arange(4), x_test=noise(3, 2, 2), y_test=np.arange(3)))
    with pytest.raises(UsageError, match=r"2 of its arrays could be the images .*--image-column"):
        read(here, "m.npz")
    columns, samples = read(here, "m.npz", image_column="x_train")
    assert (columns.names, [sample.columns["y_train"] for sample in samples]) == (["y_train"], [0, 1, 2, 3])


def test_an_array_that_says_nothing_of_each_image_is_not_dropped_unsaid(here: Store) -> None:
    here.put("x.npz", npz(images=noise(4, 2, 2), class_names=np.array(["a", "b"])))
    with pytest.raises(UsageError, match="'class_names' does not have one entry for each of the 4 images"):
        read(here, "x.npz")
    assert read(here, "x.npz", image_column="images")[0].names == []


def test_sixteen_bits_and_alpha_keep_their_samples(here: Store) -> None:
    from PIL import Image

    wide, alpha = noise(2, 3, 5, dtype=np.uint16), noise(2, 3, 5, 4)
    here.put("wide.npy", npy(wide))
    here.put("alpha.npy", npy(alpha))
    for name, images in (("wide.npy", wide), ("alpha.npy", alpha)):
        for sample, image in zip(read(here, name)[1], images, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sample.data))), image)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 4), np.float32), np.zeros(5, np.uint8), np.zeros((2, 3, 4, 7), np.uint8)]
)
def test_what_holds_no_images_is_wrong_use(here: Store, array: npt.NDArray[Any]) -> None:
    here.put("x.npy", npy(array))
    with pytest.raises(UsageError, match=r"x\.npy: an array of .* does not hold images"):
        read(here, "x.npy")


def test_pickles_are_never_loaded(here: Store) -> None:
    here.put("x.npz", npz(images=noise(2, 2, 2), objects=np.array([{}, []], dtype=object)))
    with pytest.raises(UsageError, match="'objects' is of object, which no column can hold"):
        read(here, "x.npz")


def test_a_cut_file_costs_the_rows_that_it_lacks(here: Store) -> None:
    here.put("x.npy", npy(noise(4, 10, 10))[:-150])
    samples = read(here, "x.npy")[1]
    assert [sample.key for sample in samples] == [f"x.npy/{row:010d}" for row in range(4)]
    assert [bool(sample.fault) for sample in samples] == [False, False, True, True]
    assert "shorter than its header says" in samples[-1].fault


def test_other_arrays_beside_the_images_are_refused(here: Store) -> None:
    here.put("a.npz", npz(images=noise(2, 2, 2), labels=np.arange(2)))
    here.put("b.npz", npz(images=noise(2, 2, 2)))
    with pytest.raises(UsageError, match=r"b\.npz: beside the images it has nothing, .*a\.npz has labels \(int64\)"):
        read(here, "*.npz")
