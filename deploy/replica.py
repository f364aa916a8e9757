"""The replica that speaks: voices loaded as they are asked for, the least recently used let go, each with its engine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.link import Address, LinkServer
from deploy.metrics import EngineMeters
from deploy.settings import ServedVoice
from deploy.speech import Refusal, SoundPiece, SpeechJob
from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.memory import release_memory
from flowtts_core.text.marks import silence_of

if TYPE_CHECKING:
    from flowtts_core.watermark.marking import Marking

log = logging.getLogger(__name__)
REPORT_EVERY_S = 1.0
# reports after which memory goes back to the system: at work, and with nothing to do
RELEASE_EVERY, RELEASE_IDLE = 30, 3
SILENCE_S = 0.2  # of a text with no words in it
INLINE_CHARS = 200  # the front end of a longer text, or to clean a recording, would hold up the other answers


class HostedVoice:
    """A loaded voice of any kind, with an engine that streams it. Answers have 16-bit samples."""

    def __init__(
        self,
        folder: str,
        max_active: int,
        max_queued_s: float,
        device: str,
        threads: int | None = None,
        lexicon: Mapping[str, str] | None = None,
        watermark: Marking | None = None,
    ) -> None:
        from flowtts_core.streaming.engine import StreamingEngine
        from flowtts_core.voice import open_voice

        self._engine = StreamingEngine(
            open_voice(folder, device=device, threads=threads, lexicon=lexicon),
            max_queued_s=max_queued_s,
            max_active=max_active,
        )
        self._engine.warm_up()
        self._watermark = watermark

    async def sounds(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        """Speak a job: its pieces as they are made, or one piece; ends with a refusal where it cannot be spoken.

        A text with no words in it, as clients send it that cut texts into sentences, is a short silence.
        """
        from flowtts_core.streaming.engine import EngineClosed, Overloaded
        from flowtts_core.watermark.marking import MarkedChunks

        ticket = marks = None
        if self._watermark is not None and job.mark:
            marks = MarkedChunks(self._watermark, self._engine.sample_rate, job.skip)
            job = replace(job, skip=marks.skip)
        try:
            if len(job.text) <= INLINE_CHARS and job.request.prompt is None:
                ticket = self._engine.submit(job.request, stream=job.stream, skip=job.skip)
            else:
                ticket = await self._submitted(job)
            whole: list[SoundPiece] = []
            async for made in ticket:
                chunk = made if marks is None else marks.add(made)
                if chunk is None:
                    continue
                words = chunk.words if job.words else ()
                skipped_words = chunk.skipped_words if job.words else 0
                piece = SoundPiece(chunk.sample_rate, _pcm(chunk.waveform), words, chunk.skipped, skipped_words)
                if job.stream:
                    yield piece
                else:
                    whole.append(piece)
            if whole:
                yield _joined(whole)
        except Overloaded as error:
            yield Refusal("overloaded", error.message, error.retry_after_s)
        except EngineClosed as error:
            yield Refusal("draining", error.message)
        except FlowTTSError as error:
            silence_s = _silence_s(job) if ticket is None and isinstance(error, TextError) else None
            if silence_s is None:
                yield Refusal("unspeakable", error.message)
            else:
                rate = self._engine.sample_rate
                yield SoundPiece(rate, bytes(2 * round(silence_s * rate)))
        finally:
            if ticket is not None:
                ticket.cancel()

    async def _submitted(self, job: SpeechJob) -> Any:
        """The ticket of what is read in a thread, a long text or a recording; cancelled where nobody waits for it any more."""
        submit = partial(self._submit, job)
        submitting = asyncio.ensure_future(asyncio.to_thread(submit))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel_ticket)
            raise

    def _submit(self, job: SpeechJob) -> Any:
        from flowtts_core.audio.reference import clean_reference

        if job.request.prompt is not None:
            with suppress(
                FlowTTSError
            ):  # the engine says what is wrong with it; cleaned here, it holds up no other answer
                clean_reference(job.request.prompt)
        return self._engine.submit(job.request, stream=job.stream, skip=job.skip)

    def queued_s(self) -> float:
        return self._engine.queued_s

    def totals(self) -> dict[str, float]:
        stats = self._engine.stats()
        return {"pieces": stats.pieces, "batches": stats.batches, "busy_s": stats.busy_s}

    def active(self) -> int:
        return self._engine.stats().active

    def check(self) -> None:
        """Raise RuntimeError where the engine's thread has stopped."""
        if not self._engine.alive:
            raise RuntimeError("the engine has stopped")

    def close(self) -> None:
        self._engine.close()


class VoiceHost:
    """The Serve deployment.

    Args:
        voices: that may be asked for; the first is loaded at once, so that a replica that is ready speaks.
        max_voices: how many stay loaded.
        max_active: answers that each voice makes at once; a newcomer's first sound waits for a piece of each at most.
        max_queued_s: of audio that may wait for each voice.
        drain_s: that answers under way may take when the replica is told to stop.
        threads: that each voice computes with.
        lexicon: the user's own words, for all voices.
        watermark: is put into all answers, but for those that ask for none and may; None: into none.
    """

    def __init__(
        self,
        voices: tuple[ServedVoice, ...],
        max_voices: int,
        max_active: int,
        max_queued_s: float,
        drain_s: float,
        threads: int,
        lexicon: Mapping[str, str] | None = None,
        watermark: Marking | None = None,
    ) -> None:
        import torch

        self._threads, self._device = threads, "cuda" if torch.cuda.is_available() else "cpu"
        self._lexicon, self._watermark = lexicon, watermark
        self._voices = {voice.name: voice for voice in voices}
        self._max_voices, self._drain_s = max_voices, drain_s
        self._max_active, self._max_queued_s = max_active, max_queued_s
        self._loaded: OrderedDict[str, HostedVoice] = OrderedDict()
        self._loading = asyncio.Lock()
        self._gone = {"pieces": 0.0, "batches": 0.0, "busy_s": 0.0}
        self._loaded[voices[0].name] = self._load(voices[0])
        self._server = LinkServer(self.speak)
        self._address: Address | None = None
        self._starting = asyncio.Lock()
        self._draining = False
        self._reporting: asyncio.Task[None] | None = None

    async def locate(self) -> tuple[str, int, bytes]:
        """Host, port and secret of this replica's link."""
        async with self._starting:
            if self._address is None:
                import ray

                self._address = await self._server.start(ray.util.get_node_ip_address())
                self._reporting = asyncio.ensure_future(self._report())
        return self._address.host, self._address.port, self._address.secret

    async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        """The sounds of a job, as it comes by the link."""
        if self._draining:
            yield Refusal("draining")
            return
        voice = await self._voice(job.voice)
        async for item in voice.sounds(job):
            yield item

    async def check_health(self) -> None:
        for voice in self._loaded.values():
            voice.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What `deploy.scaling` decides by."""
        full = max((voice.active() / self._max_active for voice in self._loaded.values()), default=0.0)
        return {"queued_s": self._queued_s(), "active": float(self._server.running), "full": full}

    async def drain(self) -> None:
        """End what was begun, take on nothing new, and let the voices go."""
        self._draining = True
        await self._server.close()
        clock = asyncio.get_running_loop().time
        until = clock() + self._drain_s
        while self._server.running and clock() < until:
            await asyncio.sleep(0.05)
        if self._reporting is not None:
            self._reporting.cancel()
        for voice in self._loaded.values():
            voice.close()

    async def _voice(self, name: str) -> HostedVoice:
        """A voice, loaded if need be; a voice that is let go ends its answers elsewhere."""
        voice = self._loaded.get(name)
        if voice is None:
            async with self._loading:
                voice = self._loaded.get(name)
                if voice is None:
                    await self._make_room()
                    voice = await asyncio.to_thread(self._load, self._voices[name])
                    self._loaded[name] = voice
        self._loaded.move_to_end(name)
        return voice

    async def _make_room(self) -> None:
        """Let go of the voices that were used longest ago, those that are silent first."""
        while len(self._loaded) >= self._max_voices:
            name = next((n for n, v in self._loaded.items() if not v.active()), next(iter(self._loaded)))
            voice = self._loaded.pop(name)
            while voice.active():  # nobody new gets it; it ends what it has
                await asyncio.sleep(0.02)
            for key, value in voice.totals().items():
                self._gone[key] += value
            await asyncio.to_thread(voice.close)
            release_memory()

    def _load(self, voice: ServedVoice) -> HostedVoice:
        log.info("loading voice %s (process %d)", voice.name, os.getpid())
        limits = self._max_active, self._max_queued_s
        return HostedVoice(voice.folder, *limits, self._device, self._threads, self._lexicon, self._watermark)

    def _queued_s(self) -> float:
        return sum(voice.queued_s() for voice in self._loaded.values())

    def _full(self) -> float:
        """How much of what it may have the fullest voice has: at 1 it refuses."""
        shares = (
            max(voice.active() / self._max_active, voice.queued_s() / self._max_queued_s)
            for voice in self._loaded.values()
        )
        return max(shares, default=0.0)

    async def _report(self) -> None:
        meters = EngineMeters()
        since = idle = 0  # reports since memory was released, and since there was anything to do
        while True:
            totals = dict(self._gone)
            for voice in self._loaded.values():
                for key, value in voice.totals().items():
                    totals[key] += value
            meters.report(self._queued_s(), self._server.running, self._full(), totals)
            since, idle = since + 1, 0 if self._server.running else idle + 1
            if since >= RELEASE_EVERY or idle == RELEASE_IDLE:
                await asyncio.to_thread(release_memory)
                since = 0
            await asyncio.sleep(REPORT_EVERY_S)


def _silence_s(job: SpeechJob) -> float | None:
    """The seconds of silence that a job asks for in which there is nothing to say; None where there is."""
    try:
        pauses_s = silence_of(job.text, job.request.input_type)
    except TextError:
        return None
    return None if pauses_s is None else max(SILENCE_S, pauses_s)


def _joined(pieces: list[SoundPiece]) -> SoundPiece:
    timed = all(piece.words is not None for piece in pieces)
    words = tuple(word for piece in pieces for word in piece.words or ()) if timed else None
    return SoundPiece(pieces[0].sample_rate, b"".join(piece.pcm for piece in pieces), words)


def _cancel_ticket(submitted: asyncio.Future[Any]) -> None:
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()


def _pcm(waveform: np.ndarray) -> bytes:
    from flowtts_core.audio.files import to_int16

    return to_int16(waveform).astype("<i2").tobytes()
