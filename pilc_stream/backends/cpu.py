"""Placeholder while the vector kernels are being built: the reference under the name of the CPU backend."""

from pilc_stream.backends.reference import ReferenceEngine


class CpuEngine(ReferenceEngine):
    """See the module."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
