"""A hub on this machine: the few answers that huggingface_hub asks for, and ways to fail in the middle."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FakeHub:
    """One repository at one commit, served from a folder."""

    root: Path
    repository: str
    revision: str
    fails_after: int | None = None
    """Bodies of files that are still sent before every further connection is cut in the middle."""
    corrupts: set[str] = field(default_factory=set)
    """Files whose content arrives changed, at its full length."""
    sent: list[str] = field(default_factory=list)
    """Files whose whole body was sent, in order."""
    url: str = ""

    def information(self, name: str) -> dict[str, object] | None:
        """What the hub's API says of a file: small text by git's checksum, the rest by sha256."""
        path = self.root / name
        if not path.is_file():
            return None
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name.endswith(".safetensors"):
            found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return found

    def etag(self, name: str) -> str:
        found = self.information(name) or {}
        lfs = found.get("lfs")
        return str(lfs["oid"] if isinstance(lfs, dict) else found["oid"])


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    """What answers for ``hub``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path != f"/api/models/{hub.repository}/paths-info/{hub.revision}":
                code = "RevisionNotFound" if hub.repository in self.path else "RepoNotFound"
                self.answer(404, b"{}", {"X-Error-Code": code})
                return
            names = urllib.parse.parse_qs(asked).get("paths", []) or json.loads(asked)["paths"]
            found = [hub.information(name) for name in names]
            self.answer(200, json.dumps([row for row in found if row]).encode(), {})

        def do_HEAD(self) -> None:
            self.file(body=False)

        def do_GET(self) -> None:
            self.file(body=True)

        def file(self, *, body: bool) -> None:
            name = urllib.parse.unquote(self.path).partition(f"/resolve/{hub.revision}/")[2]
            content = (hub.root / name).read_bytes()
            headers = {"ETag": f'"{hub.etag(name)}"', "X-Repo-Commit": hub.revision, "Accept-Ranges": "bytes"}
            if name in hub.corrupts:
                content = bytes(byte ^ 1 for byte in content)
            if not body:
                self.answer(200, content, headers, body=False)
            elif hub.fails_after is not None and len(hub.sent) >= hub.fails_after:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.answer(200, content, headers)
                hub.sent.append(name)

        def answer(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    return Handler


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """Answers on a free port of this machine until the block ends."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
