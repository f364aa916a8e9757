"""A local S3 server for tests, in a process of its own, with the environment that leads to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3_bucket(name: str) -> Iterator[str]:
    """`s3://NAME` on a server that lives as long as the context; skips where moto is not installed."""
    pytest.importorskip("moto.server", reason="needs moto[server], a local S3")
    s3fs = pytest.importorskip("s3fs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**settings, "AWS_DEFAULT_REGION": "us-east-1"}.items():
                patch.setenv(key, value)
            _wait_for(url)
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
            yield f"s3://{name}"
            s3fs.S3FileSystem.clear_instance_cache()
    finally:
        server.terminate()
        server.wait(10)


def _wait_for(url: str) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=1)
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.skip(f"the local S3 server at {os.path.basename(url)} did not start")
