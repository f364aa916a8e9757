"""A voice that speaks piece by piece: requests cut into sentences, sentences into windows of frames, and windows made in batches.

The cut is a function of the request alone, so its sound does not depend on what else is being spoken.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flowtts_core.acoustic.base import Condition, Sampling
from flowtts_core.acoustic.matcha.model import MatchaTTS
from flowtts_core.acoustic.matcha.windows import STRIDE, Draft, can_be_windowed, decode, lay_out
from flowtts_core.engines.flow import SynthesisRequest, VoiceSynthesizer, WordTime, generation_settings
from flowtts_core.errors import ConfigError, TextError
from flowtts_core.seeds import hash_seed
from flowtts_core.text.chunking import longest_part
from flowtts_core.text.frontends import EncodedText
from flowtts_core.text.parts import MAX_TOKENS
from flowtts_core.text.sentences import split_sentences

FIRST_FRAMES = 36  # of sound in a stream's first window (0.4 s of a 22 kHz voice): what the listener waits for
LATER_FRAMES = (128, 256)  # of the windows after it; the last one stands for all further ones
LOOK_BACK, LOOK_AHEAD = 24, 12  # frames beside a window that the flow sees and that are made elsewhere
_TOKEN_FRAMES = 2.6  # frames of a token at speed 1, where they are not known yet
_CHARACTER_S = 0.065  # seconds of a character at speed 1


@dataclass(frozen=True)
class Window:
    """The flow runs over frames `[low, high)`, the mel is kept up to `mel`, and sound is made up to frame `sound`."""

    low: int
    high: int
    mel: int
    sound: int


def plan_windows(frames: int, context: int | None) -> list[Window]:
    """The windows of a sentence of `frames` frames; `context` is the vocoder's, None for one window of everything."""
    if context is None:
        return [Window(0, frames, frames, frames)]
    windows: list[Window] = []
    sound, mel, size = FIRST_FRAMES, 0, 0
    while True:
        until = sound + context
        if frames - until < LOOK_AHEAD + size // 2:  # the rest is too little for a window of its own
            sound, until = frames, frames
        low = max(0, mel - LOOK_BACK) // STRIDE * STRIDE
        windows.append(Window(low, min(frames, until + LOOK_AHEAD), until, sound))
        if sound == frames:
            return windows
        mel, size = until, LATER_FRAMES[min(len(windows), len(LATER_FRAMES)) - 1]
        sound += size


@dataclass(frozen=True)
class Sound:
    """What one step made of a request: [S] samples and the words that begin in them, by the request's clock."""

    waveform: np.ndarray
    words: tuple[WordTime, ...]
    last: bool
    frames: int  # that went through the flow for it
    skipped: int = 0  # samples before it that were not made, and words in them
    skipped_words: int = 0


@dataclass(frozen=True)
class _Span:
    """Characters `[start, end)` of the request's text, spoken in one pass, and the silence after them."""

    start: int
    end: int
    pause_s: float


@dataclass(frozen=True)
class _Sentence:
    span: _Span
    encoded: EncodedText
    seed: int


@dataclass
class _Open:
    """A sentence laid out: its windows, and how far they are made."""

    draft: Draft
    windows: list[Window]
    done: int = 0  # windows
    mel: Tensor | None = None  # [M, t] up to the last window's `mel`

    @property
    def window(self) -> Window:
        return self.windows[self.done]

    @property
    def sounded(self) -> int:
        return self.windows[self.done - 1].sound if self.done else 0


class Utterance:
    """A request on its way; `StreamingVoice.step` moves it on."""

    def __init__(
        self, request: SynthesisRequest, stream: bool, settings: Sampling, speaker: int, skip: int = 0
    ) -> None:
        self.request, self.stream, self.settings, self.speaker = request, stream, settings, speaker
        self.skip = skip  # samples that the listener has: sentences that end before are not made
        self.skipped = self.skipped_words = 0  # since the last sound
        self.spans: deque[_Span] = deque()
        self.current: _Sentence | None = None
        self.upcoming: _Sentence | None = None
        self.open: _Open | None = None
        self.spoken = 0  # sentences begun
        self.samples = 0  # made so far

    @property
    def key(self) -> Hashable:
        """Pieces of equal keys can be made together."""
        return self.settings.steps, self.settings.temperature


class StreamingVoice:
    """Cuts requests and makes their pieces; `begin` may be called by any thread, `step` by one.

    Attributes:
        timings: seconds spent so far in "frontend", "acoustic" and "vocoder".
    """

    def __init__(self, synthesizer: VoiceSynthesizer) -> None:
        voice = synthesizer.voice
        if not isinstance(voice.acoustic, MatchaTTS):
            raise ConfigError(f"voice {voice.card.name} has a model that cannot be streamed", "use a Matcha-TTS voice")
        self.synthesizer, self.model, self.vocoder = synthesizer, voice.acoustic, voice.vocoder
        self.sample_rate = synthesizer.sample_rate
        self.context = self.vocoder.context_frames if can_be_windowed(self.model) else None
        self.timings = {"frontend": 0.0, "acoustic": 0.0, "vocoder": 0.0}
        self._frontend_lock = threading.Lock()

    def begin(self, request: SynthesisRequest, stream: bool, skip: int = 0) -> Utterance:
        """Check a request and read its first sentence.

        Args:
            skip: samples that the listener has already: whole sentences of them are passed over.

        Raises:
            FlowTTSError: for values out of range, an unknown speaker, or a text of which nothing can be spoken.
        """
        settings = generation_settings(request, self.synthesizer.voice.card)
        utterance = Utterance(request, stream, settings, self.synthesizer.speaker_index(request.speaker), skip)
        began = time.perf_counter()
        utterance.spans.extend(self._cut(request))
        with self._frontend_lock:
            utterance.current = self._next_sentence(utterance)
            self.timings["frontend"] += time.perf_counter() - began
        assert utterance.current is not None
        return utterance

    def remaining_s(self, utterance: Utterance) -> float:
        """Seconds of sound still to make: known for the sentence in work, estimated for the rest."""
        seconds = 0.0
        pace = _CHARACTER_S / utterance.settings.speed
        if utterance.open is not None:
            frames = utterance.open.draft.frames - utterance.open.sounded
            seconds += self.model.features.seconds_of(frames)
        elif utterance.current is not None:
            seconds += (utterance.current.span.end - utterance.current.span.start) * pace
        if utterance.upcoming is not None:
            seconds += (utterance.upcoming.span.end - utterance.upcoming.span.start) * pace
        if utterance.spans:
            seconds += (utterance.spans[-1].end - utterance.spans[0].start) * pace
        return seconds

    def next_frames(self, utterance: Utterance) -> int:
        """Frames of the flow in the next piece; estimated before its sentence is laid out."""
        if utterance.open is not None:
            return utterance.open.window.high - utterance.open.window.low
        assert utterance.current is not None
        frames = round(len(utterance.current.encoded.tokens) * _TOKEN_FRAMES / utterance.settings.speed)
        return plan_windows(max(1, frames), self.context if utterance.stream else None)[0].high

    def _cut(self, request: SynthesisRequest) -> list[_Span]:
        """Sentences with the pause after each; a single one keeps the white space around it."""
        text = request.text
        sentences = split_sentences(text)
        if len(sentences) < 2:
            return [_Span(0, len(text), 0.0)]
        return [_Span(s.start, s.end, s.pause_s / float(request.speed)) for s in sentences]

    def _next_sentence(self, utterance: Utterance) -> _Sentence | None:
        """Read on to the next sentence with something to say; None after the last.

        Raises:
            TextError: where nothing in the whole text can be spoken.
        """
        spans, text = utterance.spans, utterance.request.text
        while spans:
            span = spans.popleft()
            try:
                encoded = self.synthesizer.frontend.encode(text[span.start : span.end]) if self._short(span) else None
            except TextError:
                if not spans and not utterance.spoken:
                    raise
                continue
            if encoded is None or len(encoded.tokens) > MAX_TOKENS:  # its first part is next, the rest waits uncut
                sentence = text[span.start : span.end]
                end = span.start + longest_part(sentence, 0, self.synthesizer.frontend, MAX_TOKENS)
                if end < span.end:
                    spans.appendleft(_Span(end, span.end, span.pause_s))
                spans.appendleft(_Span(span.start, end, span.pause_s if end == span.end else 0.0))
                continue
            seed = int(utterance.request.seed)
            seed = hash_seed(seed, utterance.spoken) if utterance.spoken else seed
            utterance.spoken += 1
            return _Sentence(span, encoded, seed)
        return None

    @staticmethod
    def _short(span: _Span) -> bool:
        return span.end - span.start <= 2 * MAX_TOKENS  # English has about 2 tokens a character: longer ones never fit

    def prepare(self) -> None:
        """Load what the first sentences would load."""
        with self._frontend_lock:
            self.synthesizer.frontend.load()

    def _open(self, utterance: Utterance) -> None:
        """Lay out the sentence in turn, and read the one after it; pass over those that the listener has."""
        while utterance.open is None:
            self._lay_out(utterance)
            assert utterance.open is not None and utterance.current is not None
            sentence, opened = utterance.current, utterance.open
            samples = self.model.features.samples_of(opened.draft.frames) + self._pause(sentence)
            if utterance.upcoming is not None and utterance.samples + samples <= utterance.skip:
                utterance.samples += samples
                utterance.skipped += samples
                utterance.skipped_words += len(sentence.encoded.words)
                utterance.current, utterance.upcoming, utterance.open = utterance.upcoming, None, None

    def _pause(self, sentence: _Sentence) -> int:
        """Samples of silence after a sentence that is not the last."""
        return round(sentence.span.pause_s * self.sample_rate)

    def _lay_out(self, utterance: Utterance) -> None:
        sentence = utterance.current
        assert sentence is not None
        with self._frontend_lock:
            began = time.perf_counter()
            if utterance.upcoming is None:
                utterance.upcoming = self._next_sentence(utterance)
            read = time.perf_counter()
            self.timings["frontend"] += read - began
        device = self.synthesizer.device
        tokens = torch.tensor([sentence.encoded.tokens], device=device)
        speakers = torch.tensor([utterance.speaker], device=device) if self.model.n_speakers > 1 else None
        condition = Condition(tokens, torch.tensor([tokens.shape[1]], device=device), speakers)
        draft = lay_out(self.model, condition, sentence.seed, utterance.settings.speed)
        windows = plan_windows(draft.frames, self.context if utterance.stream else None)
        utterance.open = _Open(draft, windows)
        self.timings["acoustic"] += time.perf_counter() - read

    def step(self, utterances: Sequence[Utterance]) -> list[Sound]:
        """Make the next window of each; where this raises, none has moved on."""
        for utterance in utterances:
            self._open(utterance)
        opened = [utterance.open for utterance in utterances if utterance.open is not None]
        began = time.perf_counter()
        with self.synthesizer.exact_convolutions():
            mels = self._decode(opened, utterances[0].settings)
            decoded = time.perf_counter()
            waveforms = self._vocode(opened, mels)
        self.timings["acoustic"] += decoded - began
        self.timings["vocoder"] += time.perf_counter() - decoded
        return [self._advance(*item) for item in zip(utterances, opened, mels, waveforms, strict=True)]

    def _decode(self, opened: Sequence[_Open], settings: Sampling) -> list[Tensor]:
        """The mel of each up to its window's end [M, mel]."""
        spans = [(o.window.low, o.window.high) for o in opened]
        pieces = decode(self.model, [o.draft for o in opened], spans, settings)
        mels = []
        for o, piece in zip(opened, pieces, strict=True):
            made = 0 if o.mel is None else o.mel.shape[1]
            fresh = piece[:, made - o.window.low : o.window.mel - o.window.low]
            mels.append(fresh if o.mel is None else torch.cat([o.mel, fresh], 1))
        return mels

    @torch.inference_mode()
    def _vocode(self, opened: Sequence[_Open], mels: Sequence[Tensor]) -> list[np.ndarray]:
        """The samples of each window's new sound."""
        mel_config = self.model.features
        lows = [0 if self.context is None else max(0, o.sounded - self.context) for o in opened]
        slices = [mel[:, low:].T for mel, low in zip(mels, lows, strict=True)]
        lengths = [len(part) for part in slices]
        padded = torch.nn.utils.rnn.pad_sequence(slices, batch_first=True).transpose(1, 2)
        made = self.vocoder(padded, torch.tensor(lengths, device=padded.device)).float().cpu().numpy()
        waveforms = []
        for row, (o, low, length) in enumerate(zip(opened, lows, lengths, strict=True)):
            final = o.window.sound == o.draft.frames
            end = mel_config.samples_of(length) if final else (o.window.sound - low) * mel_config.hop_length
            waveforms.append(made[row, (o.sounded - low) * mel_config.hop_length : end].clip(-1.0, 1.0))
        return waveforms

    def _advance(self, utterance: Utterance, opened: _Open, mel: Tensor, waveform: np.ndarray) -> Sound:
        sentence = utterance.current
        assert sentence is not None
        window = opened.window
        final = opened.done + 1 == len(opened.windows)
        last = final and utterance.upcoming is None
        if final and not last:
            waveform = np.concatenate([waveform, np.zeros(self._pause(sentence), np.float32)])
        words = self._words(utterance, sentence, opened, final)
        utterance.samples += len(waveform)
        opened.mel = mel
        opened.done += 1
        if final:
            utterance.current, utterance.upcoming, utterance.open = utterance.upcoming, None, None
        sound = Sound(waveform, words, last, window.high - window.low, utterance.skipped, utterance.skipped_words)
        utterance.skipped = utterance.skipped_words = 0
        return sound

    def _words(self, utterance: Utterance, sentence: _Sentence, opened: _Open, final: bool) -> tuple[WordTime, ...]:
        """The sentence's words that begin in the window about to be sounded."""
        hop_s = self.model.features.hop_length / self.sample_rate
        begun_s = utterance.samples / self.sample_rate - opened.sounded * hop_s  # of the sentence
        ends = opened.draft.durations.cumsum(0).tolist()
        words = []
        for word in sentence.encoded.words:
            first = ends[word.token_start - 1] if word.token_start else 0.0
            if opened.sounded <= first < opened.window.sound or (final and first >= opened.window.sound):
                start, end = word.start + sentence.span.start, word.end + sentence.span.start
                end_s = begun_s + ends[word.token_end - 1] * hop_s
                words.append(WordTime(utterance.request.text[start:end], start, end, begun_s + first * hop_s, end_s))
        return tuple(words)
