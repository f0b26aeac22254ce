"""The CUDA backend of the codec `pilc`: batches in flight as the wave codec's, its own kernels."""

from __future__ import annotations

from pilc_stream.backends.cuda.engine import CardEngine
from pilc_stream.backends.pilc.cuda_batch import PilcDecodingBatch, PilcEncodingBatch
from pilc_stream.backends.pilc.cuda_program import PilcProgram
from pilc_stream.models.pilc import PilcModel


class PilcCudaEngine(CardEngine[PilcModel]):
    """Codes tiles of the codec `pilc` on one CUDA device."""

    encoding = PilcEncodingBatch
    decoding = PilcDecodingBatch

    def load(self, model: PilcModel) -> PilcProgram:
        """A model in the card's memory."""
        return PilcProgram(model)
