"""The server's size: no speaker when nobody asks, more when audio waits, and a redeployment that loses no answer."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.serve import serving
from flowtts_core.voice.card import FLOW_VOICE
from tests.deploy.test_serve import OPTIONS, TEXT, post, replicas


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_speakers_go_to_zero_and_come_back() -> None:
    options = {**OPTIONS, "min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 2.0, "voices": [FLOW_VOICE]}
    with serving(options, "127.0.0.1", 0) as url:
        until = time.monotonic() + 60
        while replicas("Speaker") and time.monotonic() < until:
            time.sleep(0.2)
        assert not replicas("Speaker")
        began = time.monotonic()
        status, _ = post(url, "/tts", {"text": "Wake up."}, 90)
        print(f"first answer after {time.monotonic() - began:.1f} s")
        assert status == 200
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(post, url, "/tts", {"text": TEXT * 4, "seed": i}, 120) for i in range(24)]
            most = 0
            while not all(one.done() for one in asked):
                most = max(most, len(replicas("Speaker")))
                time.sleep(0.1)
        print("speakers under load:", most)
        assert {one.result()[0] for one in asked} <= {200, 503} and most == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_redeployment_loses_no_answer() -> None:
    """Front and speakers are replaced under load; every answer comes."""
    with serving(OPTIONS, "127.0.0.1", 0) as url:
        from ray import serve  # not before: Ray reads its environment on import

        from deploy.app import NAME, ServeArgs, build

        until = time.monotonic() + 40
        codes: list[int] = []

        def ask(thread: int) -> None:
            while time.monotonic() < until:
                codes.append(post(url, "/tts", {"text": TEXT, "seed": len(codes), "stream": thread % 2 == 0})[0])

        before = set(replicas("Speaker") + replicas("Front"))
        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask, thread) for thread in range(3)]
            time.sleep(3)
            serve.run(
                build(ServeArgs(**{**OPTIONS, "max_queued_s": 500.0, "log_texts": True})), name=NAME, route_prefix="/"
            )
            [one.result() for one in asking]
        after = set(replicas("Speaker") + replicas("Front"))
        print(len(codes), "answers", {code: codes.count(code) for code in set(codes)})
        assert set(codes) == {200} and not before & after
