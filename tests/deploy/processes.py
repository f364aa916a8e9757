"""Servers as an operator has them: `flowtts serve` in a process of its own, and the processes and ports below it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
START_S = 240  # on a machine that is busy with other tests
LISTEN = "0A"  # of /proc/net/tcp


@dataclass
class Server:
    """A running `flowtts serve`."""

    url: str
    process: subprocess.Popen[str]
    errors: Path
    key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        bearer = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {"Content-Type": "application/json", **bearer}

    def ask(
        self, method: str, path: str, body: Any = None, headers: Any = None, timeout: float = 60
    ) -> tuple[int, bytes]:
        """Status and body; raises what `http.client` raises."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=timeout)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(method, path, content, self.headers if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def say(self, text: str = "Good evening.", **fields: Any) -> tuple[int, bytes]:
        return self.ask("POST", "/tts", {"text": text, **fields})

    def processes(self, name: str = "") -> list[int]:
        """Process ids of the server and all below it whose command line has the name."""
        return [pid for pid in family(self.process.pid) if name in command_of(pid)]

    def listening(self) -> dict[tuple[str, int], str]:
        """Where its processes listen: (address, port), and whose command it is."""
        sockets = dict(listening_sockets())
        found = {}
        for pid in family(self.process.pid):
            with suppress(OSError):
                for entry in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(OSError):
                        if (place := sockets.get(os.readlink(entry))) is not None:
                            found[place] = command_of(pid)
        return found


@contextmanager
def serve(folder: Path, *options: str, key: str | None = None, **environment: str) -> Iterator[Server]:
    """`flowtts serve` with these options at a free port; ended as by Ctrl-C."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    folder.mkdir(exist_ok=True)
    with (folder / "out").open("w") as out, (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "serve", "--port", "0", *options],
            cwd=ROOT, env=variables, stdout=out, stderr=errors, text=True,
        )  # fmt: skip
    try:
        until, url = time.monotonic() + START_S, None
        while url is None and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
            url = re.search(r"serving at (\S+)", (folder / "out").read_text())
        assert url is not None, (folder / "errors").read_text()
        yield Server(url[1], process, folder / "errors", key)
    finally:
        below = family(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            for pid in below:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def listening_sockets() -> Iterator[tuple[str, tuple[str, int]]]:
    """`socket:[inode]` and its place, of all TCP sockets of this machine that listen."""
    for name, kind in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        table = Path(f"/proc/net/{name}")
        for row in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = row.split()
            address, port = fields[1].split(":")
            words = [int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8)]
            if fields[3] == LISTEN:
                yield f"socket:[{fields[9]}]", (socket.inet_ntop(kind, b"".join(words)), int(port, 16))
