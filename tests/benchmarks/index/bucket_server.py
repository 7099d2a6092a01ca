"""A folder as a bucket that is read over HTTP by any S3 client, every request over a slow wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from index.wire import SlowWire


@contextmanager
def bucket_server(folder: Path, wire: SlowWire) -> Iterator[str]:
    """Serve ``folder`` as the bucket ``b``, read only; gives the endpoint's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the kernel holds back answers of two writes for 40 ms.
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_HEAD(self) -> None:
            self._object(with_body=False)

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            if unquote(address.path).strip("/") == "b":
                self._list({name: values[0] for name, values in parse_qs(address.query).items()})
            else:
                self._object(with_body=True)

        def log_message(self, format: str, *args: object) -> None:
            """The benchmark has its own output."""

        def _object(self, with_body: bool) -> None:
            path = folder / unquote(urlsplit(self.path).path).removeprefix("/b/")
            if not path.is_file():
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
                return
            size = path.stat().st_size
            start, stop, status = 0, size, 200
            wanted = self.headers.get("Range", "").removeprefix("bytes=")
            headers = {"ETag": f'"{path.stat().st_mtime_ns:x}"'}
            if wanted:
                first, _, last = wanted.partition("-")
                start = int(first) if first else max(size - int(last), 0)
                stop = min(int(last) + 1, size) if first and last else size
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            headers["Last-Modified"] = formatdate(path.stat().st_mtime, usegmt=True)
            if not with_body:
                self._answer(status, b"", headers, length=stop - start)
                return
            with path.open("rb") as file:
                file.seek(start)
                self._answer(status, file.read(stop - start), headers)

        def _list(self, query: dict[str, str]) -> None:
            prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
            after = query.get("start-after", "")
            contents, folders = [], set()
            for path in sorted(item for item in folder.rglob("*") if item.is_file()):
                key = str(path.relative_to(folder))
                rest = key.removeprefix(prefix)
                if not key.startswith(prefix) or key <= after:
                    continue
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.split(delimiter)[0] + delimiter)
                    continue
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                    f'<ETag>"{path.stat().st_mtime_ns:x}"</ETag>'
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                )
            contents += [
                f"<CommonPrefixes><Prefix>{escape(item)}</Prefix></CommonPrefixes>"
                for item in sorted(folders)
            ]
            body = (
                "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>"
                f"{''.join(contents)}</ListBucketResult>"
            )
            self._answer(200, body.encode(), {"Content-Type": "application/xml"})

        def _answer(
            self, status: int, body: bytes, headers: dict[str, str], length: int | None = None
        ) -> None:
            begun = time.perf_counter()
            wire.carry(len(body), begun)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
