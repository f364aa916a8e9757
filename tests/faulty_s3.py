"""A proxy before an S3 server, by which some calls fail or are slow: `python -m tests.faulty_s3 PORT UPSTREAM_PORT SHARE`."""

from __future__ import annotations

import http.client
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_S = 2.0
FAULTS = (500, 503, "slow", "reset")


class Proxy(BaseHTTPRequestHandler):
    """Hands a call on, or answers 500 or 503, or closes the connection, or waits first."""

    protocol_version = "HTTP/1.1"
    upstream = 0
    share = 0.05
    dice = random.Random(1)

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.dice.choice(FAULTS) if self.dice.random() < self.share else None
        if fault == "slow":
            time.sleep(SLOW_S)
        elif fault == "reset":
            self.close_connection = True
            return
        elif fault is not None:
            self._answer(fault, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            upstream.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815 - the library's names

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") or headers.get("content-length") or str(len(body))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port, Proxy.upstream, Proxy.share = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", port), Proxy).serve_forever()
