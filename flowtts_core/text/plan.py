"""The one cut of a request's text: utterances in order, each with its seed and the pause after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from flowtts_core.errors import TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.seeds import hash_seed
from flowtts_core.text.chunking import speakable_chunks
from flowtts_core.text.frontends.base import EncodedText, Frontend, Word
from flowtts_core.text.sentences import split_sentences

MAX_TOKENS = 400  # of one pass through a model (about 17 s of speech); longer sentences are split at clauses


@dataclass(frozen=True)
class Utterance:
    """`text[start:end]` of a request, spoken in one pass.

    Attributes:
        seed: of this pass.
        pause_s: silence after it, in seconds, unless it is the last.
        encoded: its tokens; None where the voice has no front end.
    """

    start: int
    end: int
    seed: int
    pause_s: float = 0.0
    encoded: EncodedText | None = None


@dataclass(frozen=True)
class TextPlan:
    """All utterances of a request; `dropped` lists what in its text cannot be spoken."""

    utterances: tuple[Utterance, ...]
    dropped: tuple[str, ...] = ()


class Utterances:
    """The utterances of a request, read as they are asked for: the first of a long text costs no more than of a short one.

    Each sentence takes the request's seed. A sentence of more than `MAX_TOKENS` tokens is spoken in parts; part k > 0
    takes a seed of its own. A sentence with nothing to say is passed over.

    Args:
        frontend: the voice's; None where the voice takes texts as they are.

    Attributes:
        dropped: what could not be spoken so far.
    """

    def __init__(self, request: SynthesisRequest, frontend: Frontend | None = None) -> None:
        self._request, self._frontend = request, frontend and frontend.of(request)
        self.dropped: list[str] = []

    def __iter__(self) -> Iterator[Utterance]:
        """Raises TextError at the end where nothing in the whole text can be spoken."""
        text, problem, spoken = self._request.text, TextError("there is no text to speak"), False
        for sentence in split_sentences(text):
            try:
                utterances = self._parts(sentence.start, sentence.end)
            except TextError as error:
                self.dropped.append(sentence.text)
                problem = error
                continue
            spoken = True
            yield from utterances[:-1]
            yield replace(utterances[-1], pause_s=sentence.pause_s)
        if not spoken:
            raise problem

    def _parts(self, start: int, end: int) -> list[Utterance]:
        text, seed = self._request.text[start:end], int(self._request.seed)
        if self._frontend is None:
            return [Utterance(start, end, seed)]
        if len(text) <= 2 * MAX_TOKENS:  # English has about 2 tokens a character: longer ones never fit
            encoded = self._frontend.encode(text)
            if len(encoded.tokens) <= MAX_TOKENS:
                self.dropped += encoded.dropped
                return [Utterance(start, end, seed, 0.0, encoded)]
        parts: list[Utterance] = []
        chunks = speakable_chunks(text, self._frontend, MAX_TOKENS)
        for chunk in chunks:
            try:
                encoded = self._frontend.encode(chunk.text)
            except TextError:
                if not parts and chunk is chunks[-1]:
                    raise
                continue
            self.dropped += encoded.dropped
            own = hash_seed(seed, len(parts)) if parts else seed
            parts.append(Utterance(start + chunk.start, start + chunk.end, own, 0.0, encoded))
        return parts


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
        utterances.append([u.start, u.end, u.seed, u.pause_s, u.encoded.tokens, words, u.encoded.phonemes])
    return json.dumps([utterances, plan.dropped], ensure_ascii=False)


def unpack_plan(packed: str, text: str) -> TextPlan:
    """Return the plan of `pack_plan`; `text` is the request's."""
    utterances, dropped = json.loads(packed)
    found = []
    for start, end, seed, pause_s, tokens, words, phonemes in utterances:
        told = tuple(Word(text[start + a : start + b], a, b, first, last) for a, b, first, last in words)
        found.append(Utterance(start, end, seed, pause_s, EncodedText(tuple(tokens), (), told, phonemes)))
    return TextPlan(tuple(found), tuple(dropped))
