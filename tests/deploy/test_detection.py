"""`POST /v1/audio/detect`: marks in recordings that clients send."""

from __future__ import annotations

import base64
from typing import Any
from unittest import mock

import pytest
from fastapi.testclient import TestClient

from deploy.api import create_app
from deploy.front import Front
from deploy.settings import RequestLimits, Settings, served_voices
from flowtts_core.audio.files import encode
from flowtts_core.watermark.marker import Marker
from flowtts_core.watermark.marking import Marking
from tests.speech_like import babble

RATE, KEY, PLACE = 16_000, b"k" * 32, "/v1/audio/detect"
SOUND = babble(4.0, rate=RATE)


def client_of(marking: Marking | None = None, **limits: Any) -> TestClient:
    front = Front(
        Settings(served_voices([]), limits=RequestLimits(**limits)), mock.Mock(), mock.Mock(), marking=marking
    )
    return TestClient(create_app(front), base_url="http://127.0.0.1")


def upload(sound: Any) -> dict[str, str]:
    return {"audio": base64.b64encode(encode(sound, RATE, ".wav")).decode()}


def test_marks_are_found_by_the_servers_key_and_by_none() -> None:
    keyed = Marking(12, KEY)
    sounds = [SOUND, Marking(7).marked(SOUND, RATE), keyed.marked(SOUND, RATE)]
    for marking, numbers, own in ((None, [None, 7, None], False), (keyed, [None, 7, 12], True)):
        told = [client_of(marking).post(PLACE, json=upload(sound)).json() for sound in sounds]
        assert [one["number"] for one in told] == numbers
        assert [one["own_key"] for one in told] == [False, False, own]
        assert told[1]["share"] > 0.8 and told[1]["spans_s"] and told[1]["seconds"] == 4.0


def test_the_detector_is_opened_once_for_each_key() -> None:
    client = client_of(Marking(12, KEY))
    with mock.patch.object(Marker, "open", side_effect=Marker.open) as opened:
        for _ in range(2):
            assert client.post(PLACE, json=upload(SOUND)).json()["marked"] is False
    assert [call.args[1] for call in opened.call_args_list] == [KEY, b""]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"audio": "%"}, 400, "invalid_value"),
        ({"audio": base64.b64encode(b"no sound" * 9).decode()}, 400, "invalid_audio"),
        ({}, 400, "invalid_value"),
        (upload(SOUND), 413, "body_too_large"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(body: dict[str, str], status: int, code: str) -> None:
    answer = client_of(detect_bytes=1000).post(PLACE, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_a_recording_may_be_longer_than_other_requests() -> None:
    silence = client_of().post(PLACE, json=upload(0 * babble(8.0, rate=RATE))).json()
    assert (silence["marked"], silence["score"]) == (False, None)


def test_who_asks_for_a_number_is_told_whose_it_is() -> None:
    answer = client_of().post("/tts", json={"text": "Hello.", "watermark_number": 3})
    assert answer.status_code == 400 and "--watermark-number" in answer.json()["error"]["message"]
