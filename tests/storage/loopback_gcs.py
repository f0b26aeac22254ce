"""As much of Google Cloud Storage's JSON interface as the file system `gs` asks for, on loopback and in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    """One bucket: `objects` by name. `denied`: methods that are answered with 403."""

    objects: dict[str, bytes]
    denied: set[str]
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        kind, name = self._place()
        if "GET" in self.denied:
            self._answer(403, b"{}")
        elif kind == "bucket":
            self._json({"kind": "storage#bucket", "name": "bucket"})
        elif kind == "list":
            self._list(query)
        elif name not in self.objects:
            self._answer(404, b"{}")
        elif query.get("alt") == "media":
            self._send(self.objects[name])
        else:
            self._json(self._described(name))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, head, data = body.split(b"--==0==\nContent-Type: ", 2)
        name = json.loads(head.split(b"\n\n", 1)[1])["name"]
        data = data.split(b"\n\n", 1)[1].removesuffix(b"\n--==0==--")
        create = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch") == ["0"]
        with self.lock:
            refused = create and name in self.objects
            if not refused and "POST" not in self.denied:
                self.objects[name] = data
        if "POST" in self.denied:
            self._answer(403, b'{"error": {"message": "no right to storage.objects.create"}}')
        elif refused:
            self._answer(412, b'{"error": {"message": "conditionNotMet"}}')
        else:
            self._json(self._described(name))

    def do_DELETE(self) -> None:
        with self.lock:
            found = self.objects.pop(self._place()[1], None)
        self._answer(404 if found is None else 204, b"")

    def log_message(self, *_: Any) -> None: ...

    def _place(self) -> tuple[str, str]:
        path = urlsplit(self.path).path
        match = re.fullmatch(r"(?:/download)?/storage/v1/b/bucket(/o(?:/(.+))?)?", path)
        assert match, path
        return ("object" if match[2] else "list" if match[1] else "bucket"), unquote(match[2] or "")

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix):
                if delimiter and delimiter in rest:
                    prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
                else:
                    items.append(self._described(name))
        self._json({"items": items, "prefixes": sorted(prefixes)})

    def _described(self, name: str) -> dict[str, Any]:
        data = self.objects[name]
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        return {"name": name, "bucket": "bucket", "size": str(len(data)), "md5Hash": digest, "generation": "1"}

    def _send(self, data: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, data)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        piece = data[first : last + 1]
        self._answer(206 if piece else 416, piece, {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve() -> Iterator[tuple[str, type[Handler]]]:
    """A server for the length of a block: its address, and what it holds."""
    state = {"objects": {}, "denied": set(), "lock": threading.Lock()}
    handler: type[Handler] = type("Bucket", (Handler,), state)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
