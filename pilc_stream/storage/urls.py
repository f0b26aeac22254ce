"""What a URL is made of: local or not, its parent, its name. Pure text; nothing here touches storage.

A text without `://` is a local path and is taken literally: `%`, `#`, `?`, brackets and spaces in it are
letters like any other. With `://` it belongs to fsspec; of a chain (`zip://a.zip::s3://...`) only the first
link is split.
"""

from __future__ import annotations

import os

_LOCAL_SCHEMES = ("file://", "local://")


def local_path(url: str) -> str | None:
    """Return the absolute local path that `url` means, or None where it is on other storage."""
    for scheme in _LOCAL_SCHEMES:
        if url.startswith(scheme) and "::" not in url:
            return os.path.abspath(url.removeprefix(scheme) or "/")
    if "://" in url:
        return None
    if url == "~" or url.startswith("~/"):
        url = os.path.expanduser(url)
    return os.path.abspath(url)


def normal(url: str) -> str:
    """Return the one spelling of `url`: local paths absolute, no slash at the end (but `/` and `memory://`)."""
    path = local_path(url)
    if path is not None:
        return path
    scheme, rest, chain = _split(url)
    return f"{scheme}://{rest.rstrip('/')}{chain}"


def protocol(url: str) -> str:
    """Return the protocol of `url`: "file" for local paths, else what stands before `://`."""
    return "file" if local_path(url) is not None else url.split("://", 1)[0]


def place(url: str) -> tuple[str, ...]:
    """Return the components of `url` without protocol and chain: `s3://b/x/y` -> `("b", "x", "y")`."""
    path = local_path(url)
    rest = path if path is not None else _split(url)[1]
    return tuple(part for part in rest.split("/") if part)


def join(url: str, path: str) -> str:
    """Return the URL of `path` below `url`; `url` itself where `path` is empty."""
    if not path:
        return url
    if local_path(url) is not None:
        return f"{url.rstrip('/')}/{path}"
    scheme, rest, chain = _split(url)
    return f"{scheme}://{rest.rstrip('/')}/{path}{chain}" if rest else f"{scheme}://{path}{chain}"


def parent_and_name(url: str) -> tuple[str, str]:
    """Split a normal `url` at its last slash: `s3://b/x/y` -> `("s3://b/x", "y")`. A root has the name ""."""
    if local_path(url) is not None:
        return os.path.split(url)
    scheme, rest, chain = _split(url)
    head, _, name = rest.rpartition("/")
    return f"{scheme}://{head}{chain}", name


def is_root(url: str) -> bool:
    """Tell whether a normal `url` has no parent folder: `/`, `memory://`, a bucket."""
    path = local_path(url)
    if path is not None:
        return path == os.path.dirname(path)
    return len(place(url)) <= (0 if protocol(url) == "memory" else 1)


def _split(url: str) -> tuple[str, str, str]:
    """Split into protocol, path and the rest of the chain (with its `::`)."""
    first, separator, others = url.partition("::")
    scheme, _, rest = first.partition("://")
    return scheme, rest, separator + others
