"""The one cut of a request's text: utterances in order, each with its seed and the pause after it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowtts_core.errors import TextError
from flowtts_core.request import REQUEST_FIELDS, SynthesisRequest
from flowtts_core.seeds import hash_seed
from flowtts_core.text.chunking import speakable_chunks
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word
from flowtts_core.text.marks import PLAIN, Manner, cut, read_marks
from flowtts_core.text.sentences import collapse, split_sentences

MAX_TOKENS = 400  # of one pass through a model (about 17 s of speech); longer sentences are split at clauses


@dataclass(frozen=True)
class Utterance:
    """`text[start:end]` of a request, spoken in one pass.

    Attributes:
        seed: of this pass.
        pause_s: silence after it, in seconds; where it is the last, only if it is `held`, since the text asks for it.
        encoded: its tokens, with words by the characters of the request's text; None where the voice has no front end.
        before_s: silence before it that the text asks for.
        manner: in which the text asks for it to be spoken; see `asked`.
        said: what is spoken, where the text writes something else.
    """

    start: int
    end: int
    seed: int
    pause_s: float = 0.0
    encoded: EncodedText | None = None
    before_s: float = 0.0
    held: bool = False
    manner: Manner = PLAIN
    said: str | None = None

    def text_of(self, request: SynthesisRequest) -> str:
        """Return what is spoken."""
        return request.text[self.start : self.end] if self.said is None else self.said


def asked(request: SynthesisRequest, manner: Manner) -> SynthesisRequest:
    """Return the request as a part of its text asks for it: at another speed, by another speaker.

    Raises:
        FlowTTSError: where both speeds together are out of range.
    """
    if manner == PLAIN:
        return request
    speed = round(request.speed * manner.rate, 4)
    REQUEST_FIELDS["speed"].check(speed)
    return replace(request, speed=speed, speaker=manner.voice or request.speaker)


@dataclass(frozen=True)
class TextPlan:
    """All utterances of a request; `dropped` lists what in its text cannot be spoken."""

    utterances: tuple[Utterance, ...]
    dropped: tuple[str, ...] = ()


class Utterances:
    """The utterances of a request, read as they are asked for: the first of a long text costs no more than of a short one.

    Each sentence takes the request's seed, and so does each part of one that marks cut. A sentence of more than `MAX_TOKENS`
    tokens is spoken in parts; part k > 0 takes a seed of its own. A sentence with nothing to say is passed over.

    Args:
        frontend: the voice's; None where the voice takes texts as they are.

    Attributes:
        dropped: what could not be spoken so far.

    Raises:
        TextError: for marks or SSML that cannot be followed.
    """

    def __init__(self, request: SynthesisRequest, frontend: Frontend | None = None) -> None:
        self._request = request
        self._marked = read_marks(request.text, request.input_type)
        self._fronts = {
            manner.voice: frontend and frontend.of(asked(request, manner)) for manner in (PLAIN, *self._marked.manners)
        }
        self.dropped: list[str] = []

    def __iter__(self) -> Iterator[Utterance]:
        """Raises TextError at the end where nothing in the whole text can be spoken."""
        marked, problem, spoken = self._marked, TextError("there is no text to speak"), False
        sentences = ((s.start, s.end, s.pause_s) for s in split_sentences(marked.text))
        before_s, parts = cut(marked.text, sentences, marked.turns, marked.pauses)
        for part in parts:
            try:
                utterances = self._parts(part.start, part.end, part.manner)
            except TextError as error:
                self.dropped.append(collapse(marked.text[part.start : part.end]))
                problem = error
                before_s += part.pause_s if part.held else 0.0
                continue
            spoken = True
            utterances[0] = replace(utterances[0], before_s=before_s)
            utterances[-1] = replace(utterances[-1], pause_s=part.pause_s, held=part.held)
            before_s = 0.0
            yield from utterances
        if not spoken:
            raise problem

    def _parts(self, start: int, end: int, manner: Manner) -> list[Utterance]:
        text, seed, frontend = self._marked.text[start:end], int(self._request.seed), self._fronts[manner.voice]
        if frontend is None:
            return [self._placed(start, end, seed, None, manner)]
        if len(text) <= 2 * MAX_TOKENS:  # English has about 2 tokens a character: longer ones never fit
            encoded = frontend.encode(text)
            if len(encoded.tokens) <= MAX_TOKENS:
                self.dropped += encoded.dropped
                return [self._placed(start, end, seed, encoded, manner)]
        parts: list[Utterance] = []
        chunks = speakable_chunks(text, frontend, MAX_TOKENS)
        for chunk in chunks:
            try:
                encoded = frontend.encode(chunk.text)
            except TextError:
                if not parts and chunk is chunks[-1]:
                    raise
                continue
            self.dropped += encoded.dropped
            own = hash_seed(seed, len(parts)) if parts else seed
            parts.append(self._placed(start + chunk.start, start + chunk.end, own, encoded, manner))
        return parts

    def _placed(self, start: int, end: int, seed: int, encoded: EncodedText | None, manner: Manner) -> Utterance:
        """The utterance that speaks `[start, end)` of the text without marks, by the characters of the request's text."""
        source, (first, last) = self._request.text, self._marked.source(start, end)
        said = self._marked.text[start:end]
        if source[first:last] == said:
            return Utterance(first, last, seed, 0.0, encoded, manner=manner)
        if encoded is not None:
            encoded = replace(encoded, words=self._words(encoded.words, start, first), spans=())
        return Utterance(first, last, seed, 0.0, encoded, manner=manner, said=said)

    def _words(self, words: Sequence[Word], start: int, first: int) -> tuple[Word, ...]:
        """The words by the request's text from `first` on; those that are spoken for one written word are one."""
        found: list[Word] = []
        for word in words:
            low, high = self._marked.source(start + word.start, start + word.end)
            text = self._request.text[low:high]
            if found and (found[-1].start, found[-1].end) == (low - first, high - first):
                found[-1] = replace(found[-1], token_end=word.token_end)
            else:
                found.append(Word(text, low - first, high - first, word.token_start, word.token_end))
        return tuple(found)


def plan_text(request: SynthesisRequest, frontend: Frontend | None = None) -> TextPlan:
    """Cut a request's text into utterances; see `Utterances`.

    Raises:
        TextError: where nothing in the text can be spoken.
    """
    reading = Utterances(request, frontend)
    return TextPlan(tuple(reading), tuple(reading.dropped))


def pack_plan(plan: TextPlan) -> str:
    """Return a plan as JSON, to travel between processes; without the characters of single tokens."""
    utterances = []
    for u in plan.utterances:
        assert u.encoded is not None
        words = [[w.start, w.end, w.token_start, w.token_end] for w in u.encoded.words]
        marked = [[u.before_s, u.held, u.manner, u.said]] if u != replace(u, **_UNMARKED) else []
        utterances.append([u.start, u.end, u.seed, u.pause_s, u.encoded.tokens, words, u.encoded.phonemes, *marked])
    return json.dumps([utterances, plan.dropped], ensure_ascii=False)


_UNMARKED: dict[str, Any] = {"before_s": 0.0, "held": False, "manner": PLAIN, "said": None}


def unpack_plan(packed: str, text: str) -> TextPlan:
    """Return the plan of `pack_plan`; `text` is the request's."""
    utterances, dropped = json.loads(packed)
    found = []
    for start, end, seed, pause_s, tokens, words, phonemes, *marked in utterances:
        told = tuple(Word(text[start + a : start + b], a, b, first, last) for a, b, first, last in words)
        utterance = Utterance(start, end, seed, pause_s, EncodedText(tuple(tokens), (), told, phonemes))
        for before_s, held, manner, said in marked:
            utterance = replace(utterance, before_s=before_s, held=held, manner=Manner(*manner), said=said)
        found.append(utterance)
    return TextPlan(tuple(found), tuple(dropped))
