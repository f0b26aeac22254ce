from __future__ import annotations

import os

import pytest

from pilc_stream.storage import urls


@pytest.mark.parametrize(
    ("url", "normal", "parent", "name", "place"),
    [
        ("/a/b", "/a/b", "/a", "b", ("a", "b")),
        ("/a//b/", "/a/b", "/a", "b", ("a", "b")),
        ("file:///a/b", "/a/b", "/a", "b", ("a", "b")),
        ("/a b/c%20#?", "/a b/c%20#?", "/a b", "c%20#?", ("a b", "c%20#?")),
        ("s3://bucket/x/y/", "s3://bucket/x/y", "s3://bucket/x", "y", ("bucket", "x", "y")),
        ("memory://x", "memory://x", "memory://", "x", ("x",)),
        ("zip://a/b::s3://c/d.zip", "zip://a/b::s3://c/d.zip", "zip://a::s3://c/d.zip", "b", ("a", "b")),
    ],
)
def test_parts(url: str, normal: str, parent: str, name: str, place: tuple[str, ...]) -> None:
    assert urls.normal(url) == normal
    assert urls.normal(normal) == normal
    assert urls.parent_and_name(normal) == (parent, name)
    assert urls.place(normal) == place
    assert urls.join(parent, name) == normal
    assert urls.join(normal, "") == normal


@pytest.mark.parametrize("root", ["/", "memory://", "s3://bucket", "zip://::/a.zip"])
def test_roots(root: str) -> None:
    assert urls.is_root(urls.normal(root))
    assert not urls.is_root(urls.join(root, "x/y"))


def test_join_at_roots() -> None:
    assert urls.join("/", "a") == "/a"
    assert urls.join("memory://", "a/b") == "memory://a/b"


def test_relative_paths_become_absolute() -> None:
    assert urls.normal("x/../y") == os.path.join(os.getcwd(), "y")
    assert urls.protocol("x") == urls.protocol("file://x") == "file"
    assert urls.protocol("s3://b/x") == "s3"
