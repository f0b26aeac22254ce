"""The whole way on object storage: sources, data set and export are all buckets."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilc_stream.codecs import open_codec
from pilc_stream.images import decode_image
from pilc_stream.pipeline.compress import compress_shard
from pilc_stream.pipeline.decompress import export
from pilc_stream.pipeline.plan import job_fingerprint, plan_shards, survey
from pilc_stream.pipeline.verify import verify_dataset
from pilc_stream.records.commit import create_job
from pilc_stream.records.manifest import Manifest, finish
from pilc_stream.storage import Store, expand


def test_there_and_back_on_s3(s3_bucket: str, s3_server: Any, photo_like: Any, file_of: Any) -> None:
    options = s3_server.options
    pictures = {f"{number}.bmp": photo_like(9, 11, seed=number) for number in range(5)}
    source = Store.open(f"{s3_bucket}/source", options)
    for name, pixels in pictures.items():
        source.put(name, file_of(pixels, "BMP"))
    source.put("broken.png", b"not a picture")

    store, codec = Store.open(f"{s3_bucket}/dataset", options), open_codec("raw")
    listing = survey(expand(source.url, options))
    assert listing.images == 6
    create_job(store, job_fingerprint(listing, codec="raw", profile="raw", model_sha256="", max_pixels=10**6))
    tasks = list(plan_shards(expand(source.url, options), 1140))
    assert len(tasks) == 2
    entries = [compress_shard(task, codec, store) for task in tasks]
    assert [compress_shard(task, codec, store) for task in tasks] == entries
    finish(store)

    manifest = Manifest.load(store.url, options)
    assert verify_dataset(manifest).ok
    report = export(manifest, f"{s3_bucket}/out", storage_options=options)
    assert (report.files, report.as_they_came, report.failed) == (6, 1, ())
    out = Store.open(f"{s3_bucket}/out", options)
    assert out.read("broken.png") == b"not a picture"
    for name, pixels in pictures.items():
        np.testing.assert_array_equal(decode_image(out.read(name.replace(".bmp", ".png"))).array, pixels)
