"""Codecs: pixels <-> payloads. `open_codec` gives one that encodes, `Decoder` decodes whatever a payload says it is.

Add a codec by adding a file and its entry in `registry.py`.
"""

from pilc_stream.codecs.base import Codec, Image
from pilc_stream.codecs.large import LargeCoded, encode_large
from pilc_stream.codecs.registry import (
    DEFAULT_PROFILE,
    Decoder,
    PayloadInfo,
    encode_any,
    inspect_payload,
    open_codec,
    open_profile,
    profiles,
    shared_decoder,
)
from pilc_stream.records.payload import PAYLOAD_MAGIC

__all__ = [
    "DEFAULT_PROFILE",
    "PAYLOAD_MAGIC",
    "Codec",
    "Decoder",
    "Image",
    "LargeCoded",
    "PayloadInfo",
    "encode_any",
    "encode_large",
    "inspect_payload",
    "open_codec",
    "open_profile",
    "profiles",
    "shared_decoder",
]
