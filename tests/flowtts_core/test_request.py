"""Requests: what may be asked for, as it comes from tables, JSON and programs; and what a voice makes of it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.errors import FlowTTSError
from flowtts_core.request import (
    REQUEST_FIELDS,
    PromptClip,
    SynthesisRequest,
    check_request,
    from_json,
    settings_of,
    to_json,
)
from flowtts_core.sampling import Sampling

NUMBERS = {name: known for name, known in REQUEST_FIELDS.items() if known.kind in (int, float)}
CLIP = PromptClip(b"RIFF\x00\xff")


def values_of(name: str) -> st.SearchStrategy[Any]:
    known = REQUEST_FIELDS[name]
    if known.choices:
        return st.sampled_from(known.choices)
    if known.kind is int:
        return st.integers(int(known.low), int(known.high))  # type: ignore[arg-type]
    if known.kind is float:
        return st.floats(known.low, known.high)
    return st.binary(max_size=20).map(PromptClip) if known.kind is PromptClip else st.text(min_size=1, max_size=10)


REQUESTS = st.builds(
    SynthesisRequest,
    text=st.text(max_size=30),
    **{
        name: values_of(name) if known.default is not None else st.none() | values_of(name)
        for name, known in REQUEST_FIELDS.items()
    },
)


def test_every_field_but_the_text_is_described() -> None:
    assert list(REQUEST_FIELDS) == [f.name for f in fields(SynthesisRequest) if f.name != "text"]
    for name, known in REQUEST_FIELDS.items():
        assert known.name == name and known.meaning and known.kind in (int, float, str, PromptClip)
        assert (known.low is None) == (known.high is None) == (known.kind not in (int, float))
        assert known.default == getattr(SynthesisRequest(text=""), name)


def test_fields_are_given_by_name_alone() -> None:
    with pytest.raises(TypeError):
        SynthesisRequest("Hello.", 3)  # type: ignore[misc]


@settings(deadline=None)
@given(REQUESTS)
def test_a_request_in_range_is_taken_and_travels_as_json(request: SynthesisRequest) -> None:
    check_request(request)
    travelled = json.loads(json.dumps(to_json(request)))
    assert from_json(travelled) == request
    assert set(travelled) == {"text", *settings_of(request)}


def test_json_holds_what_is_asked_for_and_no_defaults() -> None:
    assert to_json(SynthesisRequest(text="Hello.")) == {"text": "Hello."}
    request = SynthesisRequest(text="Hello.", seed=3, prompt=CLIP)
    assert to_json(request) == {"text": "Hello.", "seed": 3, "prompt": "UklGRgD/"}
    assert settings_of(request) == {"seed": 3, "prompt": CLIP}


def test_a_clip_is_known_by_its_bytes() -> None:
    assert PromptClip(b"a") == PromptClip(b"a") != PromptClip(b"b")
    assert PromptClip(b"a").digest == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert "RIFF" not in repr(SynthesisRequest(text="", prompt=CLIP)), "messages hold no sound"


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_have_a_range(name: str) -> None:
    known = NUMBERS[name]
    whole = known.kind is int
    plain = SynthesisRequest(text="")
    for value in (known.low, known.high, np.float32(known.low) if not whole else np.int64(known.low)):  # type: ignore[arg-type]
        check_request(replace(plain, **{name: value}))
    beyond = 1 if whole else 1e-6
    bad: list[Any] = [known.low - beyond, known.high + beyond, float("nan"), float("inf"), True, "1", [1], CLIP]  # type: ignore[operator]
    for value in [*bad, *([0.5] if whole else [])]:
        with pytest.raises(FlowTTSError, match=f"{name} = .*: use a"):
            check_request(replace(plain, **{name: value}))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", None, "text = None: use a string"),
        ("text", b"Hello.", "use a string"),
        ("speaker", 3, "speaker = 3: use a string"),
        ("prompt", "clip.wav", "prompt = 'clip.wav': use a clip"),
        ("prompt", b"RIFF", "use a clip"),
        ("seed", None, "seed = None"),
        ("speed", None, "speed = None"),
    ],
)
def test_values_of_another_kind_are_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(FlowTTSError, match=message):
        check_request(replace(SynthesisRequest(text="Hello."), **{field: value}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("seed", "7", 7),
        ("seed", " 7 ", 7),
        ("seed", 7.0, 7),
        ("seed", "7.0", 7),
        ("seed", str(2**63 - 1), 2**63 - 1),
        ("seed", -(2**63), -(2**63)),
        ("speed", "1.5", 1.5),
        ("speed", 2, 2.0),
        ("guidance", "0", 0.0),
        ("speaker", "Anna", "Anna"),
        ("speaker", 12, "12"),
        ("prompt", "clips/a.wav", "clips/a.wav"),
        *((name, empty, None) for name in REQUEST_FIELDS for empty in ("", None)),
    ],
)
def test_cells_of_tables_are_read(name: str, cell: object, value: object) -> None:
    found = REQUEST_FIELDS[name].parse(cell)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("seed", "seven"),
        ("seed", 7.5),
        ("seed", "7.5"),
        ("seed", str(2**63)),
        ("seed", True),
        ("seed", float("nan")),
        ("steps", -1),
        ("steps", 1001),
        ("steps", [4]),
        ("speed", "fast"),
        ("speed", float("inf")),
        ("speed", "0.1"),
        ("speaker", 1.5),
        ("speaker", True),
        ("speaker", "a\x00b"),
        ("grid", "\ud800"),
        ("prompt", 3.5),
    ],
)
def test_cells_that_cannot_be_read_name_their_column(name: str, cell: object) -> None:
    with pytest.raises(FlowTTSError, match=f"'{name}' must be") as caught:
        REQUEST_FIELDS[name].parse(cell)
    assert len(caught.value.message) <= 200


@settings(deadline=None)
@given(st.sampled_from(sorted(NUMBERS)), st.one_of(st.floats(), st.integers(), st.text(max_size=8)))
def test_what_is_read_is_in_range(name: str, cell: object) -> None:
    try:
        value = NUMBERS[name].parse(cell)
    except FlowTTSError:
        return
    NUMBERS[name].check(value if value is not None else NUMBERS[name].default)


# --- what a voice makes of it -------------------------------------------------------------------------------------------


def test_a_voices_settings_hold_where_a_request_says_nothing() -> None:
    own = Sampling(steps=7, temperature=0.4, speed=1.2, guidance=2.0, solver="heun", grid={"name": "sway", "s": -0.5})
    assert own.asked(SynthesisRequest(text="")) == own
    asked = SynthesisRequest(text="", steps=0, temperature=0.0, guidance=0.0, grid="power", speed=0.5)
    assert own.asked(asked) == Sampling(0, 0.0, 0.6, 0.0, "heun", {"name": "power"})


def test_both_speeds_together_have_a_range() -> None:
    assert Sampling(speed=2.5).asked(SynthesisRequest(text="", speed=4.0)).speed == 10.0
    for own, asked in ((4.0, 4.0), (0.2, 0.25), (1.0, float("nan"))):
        with pytest.raises(FlowTTSError, match="times the voice's own"):
            Sampling(speed=own).asked(SynthesisRequest(text="", speed=asked))


def test_a_clip_may_stand_in_a_cell() -> None:
    known = REQUEST_FIELDS["prompt"]
    assert known.parse(b"RIFF\x00\xff") == known.parse({"bytes": b"RIFF\x00\xff", "path": "a.wav"}) == CLIP
    assert known.parse({"bytes": None, "path": "clips/a.wav"}) == "clips/a.wav"


def test_options_have_names_for_people() -> None:
    assert {f.option: name for name, f in REQUEST_FIELDS.items() if f.option} == {
        "clone": "prompt",
        "ref_text": "prompt_text",
    }
