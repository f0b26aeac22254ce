"""As much of Azure Blob Storage's interface as the file system `abfs` asks for, on loopback and in memory.

Held to the emulator Azurite by running the same tests against both, where that is installed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Those that every emulator has; no secret."""

_DATE = "Sat, 01 Jan 2000 00:00:00 GMT"


def connection_string(port: int) -> str:
    """What a client is told of a server on loopback."""
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


class Handler(BaseHTTPRequestHandler):
    """One container, "bucket": `blobs` by name, `blocks` put but not yet in one."""

    blobs: dict[str, bytes]
    blocks: dict[tuple[str, str], bytes]
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        container, name, query = self._place()
        if container != "bucket":
            self._error(404, "ContainerNotFound")
        elif query.get("comp") == "list":
            self._list(query)
        elif not name:
            self._answer(200)
        elif name not in self.blobs:
            self._error(404, "BlobNotFound")
        else:
            self._send(self.blobs[name])

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        container, name, query = self._place()
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if container != "bucket":
            self._error(404, "ContainerNotFound")
            return
        with self.lock:
            if query.get("comp") == "block":
                self.blocks[name, query["blockid"]] = data
                refused = False
            else:
                refused = self.headers.get("If-None-Match") == "*" and name in self.blobs
                if query.get("comp") == "blocklist":
                    named = re.findall(r"<\w+>([^<]+)</\w+>", data.decode())
                    data = b"".join(self.blocks[name, each] for each in named)
                if not refused:
                    self.blobs[name] = data
        if refused:
            self._error(409, "BlobAlreadyExists")
        else:
            self._answer(201, b"", self._described(data))

    def do_DELETE(self) -> None:
        with self.lock:
            found = self.blobs.pop(self._place()[1], None)
        if found is None:
            self._error(404, "BlobNotFound")
        else:
            self._answer(202)

    def log_message(self, *_: object) -> None: ...

    def _place(self) -> tuple[str, str, dict[str, str]]:
        parts = urlsplit(self.path)
        _, account, container, *name = parts.path.split("/", 3)
        assert account == ACCOUNT, parts.path
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return container, unquote(name[0]) if name else "", query

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, folders = "", set[str]()
        for name in sorted(self.blobs):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            elif name.startswith(prefix):
                described = (
                    f"<Content-Length>{len(self.blobs[name])}</Content-Length><Last-Modified>{_DATE}</Last-Modified>"
                )
                kind = "<BlobType>BlockBlob</BlobType>"
                items += f"<Blob><Name>{escape(name)}</Name><Properties>{described}{kind}</Properties></Blob>"
        items += "".join(f"<BlobPrefix><Name>{escape(each)}</Name></BlobPrefix>" for each in sorted(folders))
        head = f'<EnumerationResults ContainerName="bucket"><Prefix>{escape(prefix)}</Prefix>'
        page = f"{head}<Blobs>{items}</Blobs><NextMarker /></EnumerationResults>"
        text = f'<?xml version="1.0" encoding="utf-8"?>{page}'
        self._answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _send(self, data: bytes) -> None:
        given = self.headers.get("x-ms-range") or self.headers.get("Range") or ""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", given)
        if asked is None:
            self._answer(200, data, self._described(data))
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if first > last:
            self._error(416, "InvalidRange")
            return
        span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._answer(206, data[first : last + 1], {**self._described(data), **span})

    def _described(self, data: bytes) -> dict[str, str]:
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        return {"ETag": f'"{digest}"', "Last-Modified": _DATE, "x-ms-blob-type": "BlockBlob"}

    def _error(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
        self._answer(status, text.encode(), {"x-ms-error-code": code, "Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"x-ms-version": "2021-12-02", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serve() -> Iterator[str]:
    """A server for the length of a block: the connection string of an account that has an empty container."""
    state = {"blobs": {}, "blocks": {}, "lock": threading.Lock()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Container", (Handler,), state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield connection_string(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
