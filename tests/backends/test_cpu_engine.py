from __future__ import annotations

import pytest

from pilc_stream.backends.cpu import CpuEngine
from pilc_stream.backends.emitter import VECTOR_WIDTHS
from pilc_stream.backends.machine import host_has_byte_dots, host_width
from pilc_stream.errors import DeviceError


@pytest.mark.parametrize("width", [0, 5, 32, *(width for width in VECTOR_WIDTHS if width > host_width())])
def test_vectors_that_the_machine_lacks_are_refused(width: int) -> None:
    with pytest.raises(DeviceError, match=f"vectors of {width} lanes"):
        CpuEngine(1, width)


def test_the_best_of_the_machine_is_the_default() -> None:
    assert CpuEngine().width == host_width()
    assert CpuEngine().byte_dots == host_has_byte_dots(host_width())


def test_dot_products_of_bytes_that_the_machine_lacks_are_refused() -> None:
    with pytest.raises(DeviceError, match="VNNI"):
        CpuEngine(width=4, byte_dots=True)
