"""From a job to its sounds, whatever happens to the replicas: a job whose replica dies goes on elsewhere.

A voice says the same job the same way every time, so what was already sent is skipped and the listener hears no seam.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from deploy.cache import Answer, AnswerCache, AnswerIds
from deploy.detection import MarkFinder
from deploy.errors import ApiError, overloaded, unavailable
from deploy.keys import Keyring
from deploy.metrics import Meters
from deploy.references import ReferenceStore, not_allowed
from deploy.requests import VoiceList
from deploy.settings import Settings
from deploy.speech import Refusal, ReplicaLink, ReplicaLost, SoundPiece, SpeechJob
from flowtts_core.request import SynthesisRequest
from flowtts_core.voice.card import cache_folder
from flowtts_core.watermark.marking import Marking

# lost replicas at the same place, or with no new sound: a job that kills must not kill many
ATTEMPTS, MOST_SILENT = 4, 16
BACKOFF_S = 0.05
QUEUE_LOOK_S = 0.1  # a request that waits for a place looks for one this often


class Call(Protocol):
    """A request under way; `quiet` is a WebSocket on which nothing is said, `owner` the hash of the key that was shown."""

    owner: str
    may_clone: bool

    @property
    def quiet(self) -> bool: ...


class AnswerCut(Exception):
    """An answer that had begun cannot be ended."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Front:
    """What all ways in share: voices, keys, kept answers, meters, and the way to the replicas.

    Args:
        marking: what answers are marked by, whose key also finds marks; None where they are not.
        elsewhere: asks the other fronts for a kept answer by its id and owner; None where there is no other.
    """

    settings: Settings
    replicas: ReplicaLink
    meters: Meters
    elsewhere: Callable[[str, str], Awaitable[Answer | None]] | None = None
    marking: Marking | None = None
    voices: VoiceList = field(init=False)
    keyring: Keyring = field(init=False)
    cache: AnswerCache = field(init=False)
    calls: set[Call] = field(default_factory=set, init=False)
    ending: bool = field(default=False, init=False)
    speaking: int = field(default=0, init=False)
    _lines: dict[str, asyncio.Lock] = field(default_factory=dict, init=False)
    answer_ids: AnswerIds = field(init=False)
    references: ReferenceStore = field(init=False)
    finder: MarkFinder = field(init=False)

    def __post_init__(self) -> None:
        self.voices = VoiceList(self.settings.voices, self.settings.aliases)
        self.keyring = Keyring(None if self.settings.keys is None else Path(self.settings.keys))
        self.cache = AnswerCache(self.settings.cache_bytes)
        self.answer_ids = AnswerIds(self.cache)
        place = self.settings.references or str(cache_folder("references"))
        limits = self.settings.limits
        self.references = ReferenceStore(place, limits.references, limits.prompt_bytes)
        self.finder = MarkFinder(b"" if self.marking is None else self.marking.key, limits.detect_bytes)

    async def imitating(self, request: SynthesisRequest, reference: str | None, call: Call) -> SynthesisRequest:
        """Return a request with the recording that it names by `reference`, where it may bring or name one.

        Raises:
            ApiError: 403 where it may not, 404 for a reference that is not its caller's, 400 for two recordings.
        """
        if reference is None and request.prompt is None:
            return request
        if not call.may_clone:
            raise not_allowed()
        if reference is None:
            return request
        if request.prompt is not None or request.prompt_text is not None:
            raise ApiError(400, "reference: it has its recording and its text already", "invalid_value", "reference")
        clip, text = await self.references.find(reference, call.owner)
        return replace(request, prompt=clip, prompt_text=text)

    async def begin(self, job: SpeechJob) -> Answering:
        """Wait for the first sound.

        Raises:
            ApiError: 400 for what cannot be spoken, 403 for sound without a watermark where that is not allowed, 503 where the
                replicas are too busy or keep dying.
        """
        if not job.mark and self.settings.watermark is not None and not self.settings.allow_unmarked:
            raise ApiError(403, "watermark: this server marks all that it speaks", "watermark_required", "watermark")
        self.speaking += 1  # until `Answering.aclose`
        try:
            return await self._placed(job)
        except BaseException:
            self.speaking -= 1
            raise

    async def _placed(self, job: SpeechJob) -> Answering:
        """Begin the job at once; where all replicas are full, wait behind those who wait for the same voice."""
        line = self._lines.setdefault(job.voice, asyncio.Lock())
        wait_s = self.settings.limits.queue_s
        if not line.locked():
            try:
                return await self._begun(job)
            except ApiError as error:
                if not wait_s or error.code != "overloaded":
                    raise
        until = time.monotonic() + wait_s
        try:
            async with asyncio.timeout(wait_s):
                await line.acquire()
        except TimeoutError:
            raise overloaded(wait_s) from None
        try:
            while True:
                try:
                    return await self._begun(job)
                except ApiError as error:
                    if error.code != "overloaded" or time.monotonic() >= until:
                        raise
                await asyncio.sleep(QUEUE_LOOK_S)
        finally:
            line.release()

    async def _begun(self, job: SpeechJob) -> Answering:
        answering = Answering(self, job)
        await answering.start()
        return answering

    def drain(self) -> tuple[int, int]:
        """Refuse what is new from now on; returns how much is under way, and how many WebSockets are quiet."""
        self.ending = True
        quiet = sum(call.quiet for call in self.calls)
        return len(self.calls) - quiet + self.speaking, quiet

    async def kept(self, answer_id: str, owner: str) -> Answer | None:
        """Return the answer of an id, whichever front made it; None where it is unknown, too old or somebody else's."""
        found = self.answer_ids.find(answer_id, owner)
        if found is None and self.elsewhere is not None:
            found = await self.elsewhere(answer_id, owner)
        return found


class Answering:
    """The sounds of one job; iterate over it once, and `aclose` it."""

    def __init__(self, front: Front, job: SpeechJob) -> None:
        self._front, self._job = front, job
        self._began = time.perf_counter()
        self._sounds: Any = self._run()
        self._first: SoundPiece | None = None
        self.samples = 0
        self._reached = 0  # samples of the replica that is asked
        self.words = 0
        self.complete = self._closed = False

    async def start(self) -> None:
        try:
            self._first = await anext(self._sounds)
        except AnswerCut as cut:
            raise cut.error from None
        except StopAsyncIteration:
            raise ApiError(400, "nothing in this text can be spoken", "unspeakable", "input") from None
        self._front.meters.first_audio(self._job.voice, time.perf_counter() - self._began)

    @property
    def sample_rate(self) -> int:
        assert self._first is not None
        return self._first.sample_rate

    @property
    def chars(self) -> int:
        return len(self._job.text)

    @property
    def seconds(self) -> float:
        """Of sound so far."""
        return 0.0 if self._first is None else self.samples / self._first.sample_rate

    async def __aiter__(self) -> AsyncIterator[SoundPiece]:
        """Raises AnswerCut."""
        assert self._first is not None
        yield self._first
        async for sound in self._sounds:
            yield sound

    async def aclose(self) -> None:
        """Let go; where sounds were still to come, the replica stops making them."""
        if not self._closed:
            self._closed = True
            self._front.speaking -= 1
        await self._sounds.aclose()

    async def _run(self) -> AsyncIterator[SoundPiece]:
        """The job's sounds, from one replica after the other if need be; raises AnswerCut."""
        # A job that kills its replica dies where it died before and gives no new sound; others' deaths come anywhere. So a long
        # answer may outlive any number of replicas, as long as each of them, or one of several, makes some of it.
        failed, silent, place, heard = 0, 0, -1, 0
        while True:
            try:
                async with aclosing(self._once()) as sounds:  # type: ignore[type-var]  # an async generator
                    async for sound in sounds:
                        yield sound
                self.complete = True
                self._front.meters.spoken(self._job.voice, self.seconds, time.perf_counter() - self._began)
                return
            except ReplicaLost:
                failed = failed + 1 if self._reached == place else 1
                silent = 1 if self.samples > heard else silent + 1
                place, heard = self._reached, self.samples
                if failed == ATTEMPTS or silent == MOST_SILENT:
                    raise AnswerCut(unavailable()) from None
            self._front.meters.retried()
            await asyncio.sleep(BACKOFF_S * 2**failed)

    async def _once(self) -> AsyncIterator[SoundPiece]:
        """The sounds that were not sent yet, from one replica."""
        samples = words = self._reached = 0
        again = self._job.stream and self.samples > 0
        sounds: Any = self._front.replicas.speak(replace(self._job, skip=self.samples) if again else self._job)
        async with aclosing(sounds):
            async for item in sounds:
                if isinstance(item, Refusal):
                    raise self._refused(item)
                samples += item.skipped
                words += item.skipped_words
                skip = max(0, self.samples - samples)
                samples += len(item.pcm) // 2
                self._reached = samples
                words += len(item.words or ())
                if samples <= self.samples and words <= self.words:
                    continue
                told = item.words or ()
                new = told[max(0, len(told) - (words - self.words)) :] if words > self.words else ()
                self.samples, self.words = max(self.samples, samples), max(self.words, words)
                yield replace(item, pcm=item.pcm[2 * skip :], words=None if item.words is None else new)
                if self.samples > self._front.settings.limits.audio_s * item.sample_rate:
                    raise AnswerCut(ApiError(400, "the answer is longer than this server allows", "audio_too_long"))

    @staticmethod
    def _refused(refusal: Refusal) -> Exception:
        if refusal.kind == "unspeakable":
            return AnswerCut(ApiError(400, refusal.message, "unspeakable"))
        if refusal.kind == "overloaded":
            return AnswerCut(overloaded(refusal.retry_after_s))
        return ReplicaLost(refusal.message)
