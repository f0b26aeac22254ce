from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from pilc_stream.storage import Store


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store on each kind of storage."""
    if request.param == "local":
        return Store.open(str(tmp_path / "not yet there" / "ds"))
    if request.param == "memory":
        return Store.open(f"memory://{uuid.uuid4().hex}/ds")
    server = request.getfixturevalue("s3_server")
    return Store.open(f"{request.getfixturevalue('s3_bucket')}/ds", server.options)
