"""What one may ask a voice for: the fields of a request, written down once.

Table columns, Arrow schemas, HTTP bodies, command-line options and the identity of jobs derive from `REQUEST_FIELDS`.
"""

from __future__ import annotations

import base64
import hashlib
import numbers
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from flowtts_core.errors import FlowTTSError

SEEDS = 2**63
_BAD_TEXT = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class PromptClip:
    """A recording as the bytes of an audio file; `digest` is their SHA-256."""

    audio: bytes = field(repr=False)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.audio).hexdigest()


def _ask(
    default: Any,
    meaning: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    option: str = "",
) -> Any:
    """A field of `SynthesisRequest`: its default, what it means, its range or choices, and its name as an option."""
    told = {"meaning": meaning, "low": low, "high": high, "choices": choices, "option": option}
    return field(default=default, metadata=told)


@dataclass(frozen=True, kw_only=True)
class SynthesisRequest:
    """A text and how to speak it. Fields left None take the voice's own defaults."""

    text: str
    seed: int = _ask(0, "another number, another reading", -SEEDS, SEEDS - 1)
    speed: float = _ask(1.0, "2 speaks twice as fast", 0.25, 4.0)
    steps: int | None = _ask(None, "steps of the flow: more is finer and slower", 0, 1000)
    temperature: float | None = _ask(None, "of the flow's noise: more is livelier", 0.0, 2.0)
    guidance: float | None = _ask(None, "weight of classifier-free guidance", 0.0, 20.0)
    grid: str | None = _ask(None, "time grid of the flow: uniform, sway, power, shift or pruned")
    speaker: str | None = _ask(None, "a speaker of the voice, where it has several")
    language: str | None = _ask(None, "language of the text, where the voice speaks several")
    prompt: PromptClip | None = _ask(
        None, "a recording whose voice is imitated, 3 to 12 s of one person, where the voice takes one", option="clone"
    )
    prompt_text: str | None = _ask(None, "what is said in that recording, word for word", option="ref_text")
    style: str | None = _ask(None, "manner of a clone that was saved with several, as calm or lively")
    input_type: str = _ask("text", "what the text is: text or ssml", choices=("text", "ssml"))


@dataclass(frozen=True)
class RequestField:
    """A field of `SynthesisRequest` other than its text.

    Attributes:
        kind: int, float, str or PromptClip.
        choices: the strings that it may be; empty: any.
        option: its name as an option and a column, where it has another there; its own is accepted too.
    """

    name: str
    kind: type
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    option: str = ""

    def check(self, value: Any) -> None:
        """Raise FlowTTSError for a value of another type or out of range."""
        if value is None and self.default is None:
            return
        if self.kind in (int, float):
            number = numbers.Integral if self.kind is int else numbers.Real
            if not isinstance(value, number) or isinstance(value, bool) or not self.low <= value <= self.high:  # type: ignore[operator]  # NaN is in no range
                what = "a whole number" if self.kind is int else "a value"
                raise FlowTTSError(f"{self.name} = {value!r}: use {what} from {self.low:g} to {self.high:g}")
        elif not isinstance(value, self.kind):
            raise FlowTTSError(f"{self.name} = {value!r}: use a {'string' if self.kind is str else 'clip'}")
        elif self.choices and value not in self.choices:
            raise FlowTTSError(f"{self.name} = {value!r}: use {' or '.join(self.choices)}")

    def parse(self, value: Any) -> Any:
        """Return a value as a table's cell gives it, numbers also as text; None for an empty cell.

        Of a clip this is its path, as written, or the clip itself where the cell holds its bytes.

        Raises:
            FlowTTSError: for what cannot be read as such a value.
        """
        if value is None or value == "":
            return None
        if self.kind in (int, float):
            return self._number(value)
        if self.kind is PromptClip and isinstance(value, dict):  # as the datasets library stores audio
            value = value.get("bytes") or value.get("path")
        if self.kind is PromptClip and isinstance(value, bytes):
            return PromptClip(value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or _BAD_TEXT.search(value):
            raise FlowTTSError(f"{self.name!r} must be text, not {value!r}"[:200])
        if self.choices and value not in self.choices:
            raise FlowTTSError(f"{self.name!r} must be {' or '.join(self.choices)}, not {value!r}"[:200])
        return value

    def _number(self, value: Any) -> int | float:
        whole = self.kind is int
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
            if whole and not isinstance(value, bool | float) and "." not in str(value):
                number = int(value)  # a float cannot tell large seeds apart
        except (TypeError, ValueError):
            number = float("nan")
        if not self.low <= number <= self.high or (whole and number != int(number)):  # type: ignore[operator]
            what = "a whole number" if whole else "a number"
            raise FlowTTSError(f"{self.name!r} must be {what} from {self.low:g} to {self.high:g}, not {value!r}"[:200])
        return int(number) if whole else number


def _kind(hint: Any) -> type:
    """The type of a field that may be None too."""
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
    return typing.cast(type, kinds[0])


_HINTS = typing.get_type_hints(SynthesisRequest)
REQUEST_FIELDS = {
    f.name: RequestField(f.name, _kind(_HINTS[f.name]), f.default, **f.metadata)
    for f in fields(SynthesisRequest)
    if f.name != "text"
}


def check_request(request: SynthesisRequest) -> None:
    """Raise FlowTTSError for values that no voice can follow, of the wrong type too: rows come from anywhere."""
    if not isinstance(request.text, str):
        raise FlowTTSError(f"text = {request.text!r}: use a string")
    for name, known in REQUEST_FIELDS.items():
        known.check(getattr(request, name))


def settings_of(request: SynthesisRequest) -> dict[str, Any]:
    """Return the fields other than the text that are not at their defaults."""
    return {name: value for name, f in REQUEST_FIELDS.items() if (value := getattr(request, name)) != f.default}


def to_json(request: SynthesisRequest) -> dict[str, Any]:
    """Return a request as JSON values; a clip as base64."""
    values = settings_of(request)
    clips = {name: base64.b64encode(v.audio).decode() for name, v in values.items() if isinstance(v, PromptClip)}
    return {"text": request.text, **values, **clips}


def from_json(values: Mapping[str, Any]) -> SynthesisRequest:
    """Return the request of `to_json`; raises ValueError for a clip that is no base64."""
    clips = {
        name: PromptClip(base64.b64decode(value, validate=True))
        for name, value in values.items()
        if name in REQUEST_FIELDS and REQUEST_FIELDS[name].kind is PromptClip and value is not None
    }
    return SynthesisRequest(**{**values, **clips})
