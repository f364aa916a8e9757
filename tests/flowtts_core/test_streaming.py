"""Streaming: a request's sound is its own, whole or in pieces; the urgent go first, and nothing hangs or dies silently."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flowtts_core.audio.mel import MelConfig
from flowtts_core.engines.base import Speech
from flowtts_core.engines.flow import FlowSynthesizer
from flowtts_core.errors import FlowTTSError, TextError
from flowtts_core.request import SynthesisRequest
from flowtts_core.streaming import engine as streaming
from flowtts_core.streaming.engine import (
    Cancelled,
    EngineClosed,
    Overloaded,
    StreamingEngine,
    Ticket,
    join,
    source_of,
)
from flowtts_core.streaming.source import SentenceSource, StreamPiece
from flowtts_core.vocoder import (
    BandSplit,
    BandSplitConfig,
    GriffinLim,
    GriffinLimConfig,
    RFWave,
    RFWaveConfig,
    Vocos,
    VocosConfig,
)
from tests.voices import make_voice

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it runs back home through the dark wood."
STORY = 'It rained.\n\n* * *\n\n"Come in," she said. He came in; nobody spoke.\n\nAt 7:30 Dr. Smith left. - - -'


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory: pytest.TempPathFactory) -> FlowSynthesizer:
    """Small and random: for what must hold of any voice."""
    return FlowSynthesizer.load(make_voice(tmp_path_factory.mktemp("voices") / "amy", n_speakers=2))


@pytest.fixture(scope="module")
def bundled() -> FlowSynthesizer:
    return FlowSynthesizer.load()


@pytest.fixture
def engine(synthesizer: FlowSynthesizer) -> Iterator[StreamingEngine]:
    engine = StreamingEngine(synthesizer, threads=1)
    yield engine
    engine.close()


def whole(synthesizer: FlowSynthesizer, request: SynthesisRequest) -> Speech:
    [speech] = synthesizer.synthesize([request])
    assert isinstance(speech, Speech), speech
    return speech


# --- sound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("n_fft", [1024, 800])
def test_a_frames_samples_depend_on_its_context_and_on_no_more(padding: str, n_fft: int) -> None:
    torch.manual_seed(1)
    mel = MelConfig(n_fft=n_fft, win_length=n_fft, padding=padding)
    vocoder = Vocos(VocosConfig(mel, dim=16, intermediate_dim=32, num_layers=2)).eval()
    with torch.no_grad():
        for module in vocoder.modules():
            if isinstance(module, torch.nn.Conv1d):
                module.weight.normal_(0, 0.5)
    frames, at = torch.randn(1, 80, 90), 45
    changed = frames.clone()
    changed[..., at] += 5.0
    context, hop = vocoder.context_frames, mel.hop_length
    assert context is not None
    with torch.inference_mode():
        difference = (vocoder(frames) - vocoder(changed))[0].abs()
    assert difference[: (at - context) * hop].max() == 0 and difference[(at + context + 1) * hop :].max() == 0
    assert difference[(at - context + 1) * hop : (at + context) * hop].max() > 0
    near = difference[: (at - context + 2) * hop].max(), difference[(at + context - 1) * hop :].max()
    assert min(near) > 0, "a context of less by two frames would do"


def same(got: Speech, expected: Speech) -> None:
    np.testing.assert_allclose(got.waveform, expected.waveform, atol=1e-4)
    assert got.words is not None and expected.words is not None
    assert [(w.word, w.start) for w in got.words] == [(w.word, w.start) for w in expected.words]
    for one, other in zip(got.words, expected.words, strict=True):
        assert (one.start_s, one.end_s) == pytest.approx((other.start_s, other.end_s), abs=1e-4)


def test_the_bundled_voice_streams_what_it_speaks(bundled: FlowSynthesizer) -> None:
    request = SynthesisRequest(text=SENTENCE, seed=7)
    engine = StreamingEngine(bundled, threads=1)
    chunks = list(engine.submit(request).chunks())
    engine.close()
    assert len(chunks) >= 3 and [c.last for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[0].waveform.dtype == np.float32
    same(join(chunks), whole(bundled, request))


@pytest.mark.parametrize("stream", [True, False])
def test_settings_of_requests_are_followed(engine: StreamingEngine, synthesizer: FlowSynthesizer, stream: bool) -> None:
    for request in (
        SynthesisRequest(text=f"  {SENTENCE} ", seed=3, speaker="speaker-1", grid="sway"),
        SynthesisRequest(text="Yes. Or no?", seed=1, speed=1.4, steps=2, temperature=0.3),
        SynthesisRequest(text="No!", steps=0),
    ):
        same(engine.submit(request, stream=stream).speech(), whole(synthesizer, request))


def test_what_a_listener_has_is_not_made_again(engine: StreamingEngine) -> None:
    """Whole sentences are passed over, and what follows is the same, samples and words."""
    request = SynthesisRequest(text=STORY, seed=5)
    chunks = list(engine.submit(request).chunks())
    samples = np.concatenate([chunk.waveform for chunk in chunks])
    words = [word for chunk in chunks for word in chunk.words]
    passed = set()
    for skip in range(0, len(samples) + 1, len(samples) // 12):
        rest = list(engine.submit(request, skip=skip).chunks())
        gone, gone_words = sum(chunk.skipped for chunk in rest), sum(chunk.skipped_words for chunk in rest)
        assert gone <= skip
        assert all(chunk.skipped == 0 for chunk in rest[1:])
        np.testing.assert_allclose(np.concatenate([chunk.waveform for chunk in rest]), samples[gone:], atol=1e-4)
        left = [word for chunk in rest for word in chunk.words]
        assert [(word.word, word.start) for word in left] == [(word.word, word.start) for word in words[gone_words:]]
        assert [word.start_s for word in left] == pytest.approx([word.start_s for word in words[gone_words:]], abs=1e-4)
        passed.add(gone)
    assert len(passed) > 2


def test_a_requests_sound_does_not_depend_on_load(synthesizer: FlowSynthesizer) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve".split()
    requests = [
        SynthesisRequest(
            text=" ".join(words[: 2 + i % 11]).capitalize() + (". And so on!" if i % 4 == 0 else "."),
            seed=i,
            speed=(1.0, 1.3)[i % 2],
            steps=(4, 2)[i % 3 == 0],
            speaker=f"speaker-{i % 2}",
        )
        for i in range(20)
    ]
    for stream, asked in ((True, requests), (False, requests[::3])):
        source = source_of(synthesizer)
        source.most_together = 1
        alone_engine = StreamingEngine(source, threads=1)
        alone = [alone_engine.submit(request, stream=stream).speech() for request in asked]
        assert alone_engine.stats().pieces == alone_engine.stats().batches
        alone_engine.close()
        source = source_of(synthesizer)
        source.most_together = 640  # as on a GPU; a CPU makes pieces one by one
        engine = StreamingEngine(source, threads=1)
        tickets = [engine.submit(request, stream=stream) for request in asked]
        together = [ticket.speech() for ticket in tickets]
        assert engine.stats().pieces > 1.2 * engine.stats().batches
        engine.close()
        for one, other in zip(alone, together, strict=True):
            assert one.words == other.words
            np.testing.assert_allclose(other.waveform, one.waveform, atol=1e-4)


@pytest.mark.parametrize("stream", [True, False])
def test_words_are_complete_and_in_order_and_sentences_are_parted(engine: StreamingEngine, stream: bool) -> None:
    chunks = list(engine.submit(SynthesisRequest(text=STORY, speed=2.0), stream=stream).chunks())
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    words = [word for chunk in chunks for word in chunk.words]
    assert all(STORY[w.start : w.end] == w.word for w in words)
    spoken = "It rained Come in she said He came in nobody spoke At 7:30 Dr. Smith left"
    assert [w.word for w in words] == spoken.split()
    times = [t for w in words for t in (w.start_s, w.end_s)]
    assert times == sorted(times) and times[-1] <= join(chunks).seconds + 1e-6
    begun = 0.0
    for chunk in chunks:
        ends = begun + len(chunk.waveform) / chunk.sample_rate
        assert all(begun - 1e-6 <= word.start_s < ends + 1e-6 for word in chunk.words)
        begun = ends
    rained, come = words[1], words[2]
    pause = come.start_s - rained.end_s
    assert pause >= 0.7  # a paragraph's, at any pace
    waveform, rate = join(chunks).waveform, engine.sample_rate
    silence = waveform[round((come.start_s - 0.7) * rate) : round(come.start_s * rate)]
    assert np.mean(silence == 0) > 0.7


def test_long_text_without_a_stop_streams(engine: StreamingEngine) -> None:
    text = "word after word without any stop " * 60
    ticket = engine.submit(SynthesisRequest(text=text))
    assert engine.queued_s > 10
    assert [w.word for w in ticket.speech().words] == text.split()
    assert engine.queued_s == 0 and engine.stats().active == 0


def test_a_vocoder_that_needs_everything_makes_a_chunk_a_sentence(synthesizer: FlowSynthesizer) -> None:
    mel = synthesizer.voice.acoustic.features
    slow = FlowSynthesizer(replace(synthesizer.voice, vocoder=GriffinLim(GriffinLimConfig(mel, iterations=2)).eval()))
    engine = StreamingEngine(slow, threads=1)
    request = SynthesisRequest(text=SENTENCE)
    [chunk] = engine.submit(request).chunks()
    np.testing.assert_allclose(chunk.waveform, whole(slow, request).waveform, atol=1e-4)
    engine.close()
    assert type(source_of(slow)) is SentenceSource is not type(source_of(synthesizer))


@pytest.mark.parametrize("name", ["rfwave", "band_split"])
def test_vocoders_of_several_steps_stream_what_they_make_at_once(synthesizer: FlowSynthesizer, name: str) -> None:
    """Their noise is that of the frame, and their context the frames that all steps together reach."""
    mel, sizes = synthesizer.voice.acoustic.features, {"dim": 16, "intermediate_dim": 32, "num_layers": 1}
    vocoders = {
        "rfwave": lambda: RFWave(RFWaveConfig(mel, bands=4, steps=3, embed_kernel=1, frame_norm=True, **sizes)),
        "band_split": lambda: BandSplit(BandSplitConfig(mel, steps=(4, 3), **sizes)),
    }
    torch.manual_seed(0)
    own = FlowSynthesizer(replace(synthesizer.voice, vocoder=vocoders[name]().eval()))
    engine = StreamingEngine(own, threads=1)
    request = SynthesisRequest(text=SENTENCE, seed=3)
    chunks = list(engine.submit(request).chunks())
    engine.close()
    assert len(chunks) >= 3
    speech = whole(own, request)
    assert np.abs(speech.waveform).max() > 1e-3
    same(join(chunks), speech)


def test_after_warming_up_the_lexicon_is_not_read_again(
    synthesizer: FlowSynthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = StreamingEngine(FlowSynthesizer(synthesizer.voice), threads=1)
    engine.warm_up()
    monkeypatch.setattr("sqlite3.connect", None)
    speech = engine.submit(SynthesisRequest(text="Unfathomable gryphons zzyzx quietly.")).speech()
    assert [w.word for w in speech.words] == ["Unfathomable", "gryphons", "zzyzx", "quietly"]
    engine.close()


# --- scheduling, with a counted fake -----------------------------------------------------------------------------------


class FakeStream:
    def __init__(self, request: SynthesisRequest) -> None:
        name, pieces = request.text.split(":")
        self.name, self.left, self.key = name, int(pieces), request.steps


class FakeSource:
    """A text "name:4" has 4 pieces of 1 s; a batch takes 0.1 s of a clock of its own. `gate` holds the work back."""

    sample_rate, alike = 1000, 0.6

    def __init__(self, most_together: int = 100) -> None:
        self.most_together = most_together
        self.timings = dict.fromkeys(("frontend", "acoustic", "vocoder"), 0.0)
        self.now = 0.0
        self.log: list[list[str]] = []
        self.gate = threading.Event()
        self.fails: dict[str, BaseException] = {}
        self.after: dict[int, Callable[[], object]] = {}  # batch number: what is called when it is done

    def clock(self) -> float:
        return self.now

    def prepare(self) -> None:
        pass

    def begin(self, request: SynthesisRequest, skip: int = 0) -> FakeStream:
        if ":" not in request.text:
            raise TextError("nothing to say")
        return FakeStream(request)

    def next_size(self, stream: FakeStream) -> int:
        return 100

    def remaining_s(self, stream: FakeStream) -> float:
        return float(stream.left)

    def step(self, streams: Sequence[FakeStream]) -> list[StreamPiece]:
        assert self.gate.wait(10)
        for stream in streams:
            if stream.name in self.fails:
                raise self.fails[stream.name]
        self.log.append([stream.name for stream in streams])
        self.now += 0.1
        if len(self.log) in self.after:
            self.after[len(self.log)]()
        pieces = []
        for stream in streams:
            stream.left -= 1
            pieces.append(StreamPiece(np.zeros(1000, np.float32), (), stream.left == 0, 100))
        return pieces


@pytest.fixture
def fake() -> Iterator[tuple[FakeSource, StreamingEngine]]:
    """An engine of a fake voice that makes one piece at a time."""
    voice = FakeSource()
    engine = StreamingEngine(voice, clock=voice.clock, max_queued_s=1000)
    yield voice, engine
    voice.gate.set()
    engine.close()


def ask(engine: StreamingEngine, text: str, *, stream: bool = True) -> Ticket:
    return engine.submit(SynthesisRequest(text=text), stream=stream)


def hold(voice: FakeSource, engine: StreamingEngine) -> None:
    """Wait until the engine stands in its first step, so that what is asked next queues up."""
    ask(engine, "first:1")
    time.sleep(0.05)


def drain(voice: FakeSource, tickets: Sequence[Ticket]) -> list[str]:
    voice.gate.set()
    for ticket in tickets:
        ticket.speech()
    return [name for batch in voice.log for name in batch]


def test_first_pieces_go_before_later_ones_and_then_whoever_runs_dry_first(
    fake: tuple[FakeSource, StreamingEngine],
) -> None:
    voice, engine = fake
    hold(voice, engine)
    tickets = [ask(engine, "long:30"), ask(engine, "middle:3"), ask(engine, "short:1")]
    order = drain(voice, tickets)
    assert order[1:4] == ["long", "middle", "short"], "all are heard before anyone is heard twice"
    assert order[4:8] == ["long", "middle", "long", "middle"], "then by turns, as their buffers run dry"
    assert order.count("long") == 30


def test_short_requests_are_not_held_behind_long_ones(fake: tuple[FakeSource, StreamingEngine]) -> None:
    voice, engine = fake
    hold(voice, engine)
    tickets = [ask(engine, "book:200", stream=False)]
    shorts: list[Ticket] = []
    for batch in range(10, 100, 10):
        stream = batch % 20 == 0
        voice.after[batch] = lambda batch=batch, stream=stream: shorts.append(
            ask(engine, f"short{batch}:1", stream=stream)
        )
    order = drain(voice, tickets)
    for batch in range(10, 100, 10):
        assert order.index(f"short{batch}") < batch + 5, order
    assert order.count("book") == 200


def test_nothing_starves(fake: tuple[FakeSource, StreamingEngine]) -> None:
    """A long request that is not streamed ends although a new short one comes with each batch."""
    voice, engine = fake
    hold(voice, engine)
    tickets = [ask(engine, "book:5", stream=False)]
    for batch in range(1, 400):
        voice.after[batch] = lambda batch=batch: ask(engine, f"short{batch}:1")
    order = drain(voice, tickets)
    last = len(order) - order[::-1].index("book")
    assert order[:last].count("book") == 5 and last < 300, order


@pytest.mark.parametrize("stream", [True, False])
def test_a_newcomer_is_heard_soon_although_all_others_are_late(
    fake: tuple[FakeSource, StreamingEngine], stream: bool
) -> None:
    """20 long requests want 20 pieces a second or more, and get 10: they fall behind, and who comes then must not pay for it."""
    voice, engine = fake
    hold(voice, engine)
    tickets = [ask(engine, f"book{i}:30", stream=stream) for i in range(20)]
    shorts: list[Ticket] = []
    for batch in (100, 250, 400):
        voice.after[batch] = lambda batch=batch: shorts.append(ask(engine, f"short{batch}:1"))
    order = drain(voice, tickets)
    for batch in (100, 250, 400):
        assert order.index(f"short{batch}") <= batch + 1, order.index(f"short{batch}")
    made = [order[:300].count(f"book{i}") for i in range(20)]
    assert max(made) - min(made) <= 2, "and those who are late take turns"


def test_like_pieces_are_made_together_within_the_budget() -> None:
    voice = FakeSource(most_together=350)
    engine = StreamingEngine(voice, clock=voice.clock)
    hold(voice, engine)
    tickets = [engine.submit(SynthesisRequest(text=f"{i}:1", steps=i % 2)) for i in range(8)]
    drain(voice, tickets)
    assert voice.log[1:] == [["0", "2", "4"], ["1", "3", "5"], ["6"], ["7"]]
    stats = engine.stats()
    assert (stats.requests, stats.pieces, stats.batches, stats.audio_s) == (9, 9, 5, 9.0)
    engine.close()


def test_cancelling_stops_the_work(fake: tuple[FakeSource, StreamingEngine]) -> None:
    voice, engine = fake
    hold(voice, engine)
    gone, stays = ask(engine, "gone:50"), ask(engine, "stays:5")
    voice.after[4] = gone.cancel
    order = drain(voice, [stays])
    assert order.count("stays") == 5 and order.count("gone") <= 3
    with pytest.raises(Cancelled):
        list(gone.chunks())
    assert engine.queued_s == 0
    gone.cancel()  # twice is once
    stays.cancel()


def test_a_full_queue_says_when_to_come_again() -> None:
    voice = FakeSource()
    engine = StreamingEngine(voice, max_queued_s=10, clock=voice.clock)
    huge = ask(engine, "huge:40")  # one request is taken on whatever its length
    with pytest.raises(Overloaded) as caught:
        ask(engine, "late:1")
    assert caught.value.retry_after_s >= 1 and isinstance(caught.value, FlowTTSError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.retry_after_s == caught.value.retry_after_s and again.message == caught.value.message
    huge.cancel()
    assert engine.queued_s == 0
    tickets = [ask(engine, "fits:9")]
    drain(voice, tickets)
    assert ask(engine, "more:9").speech().seconds == 9
    engine.close()


def test_who_does_not_read_is_waited_for_and_holds_up_nobody(
    fake: tuple[FakeSource, StreamingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory has a bound whatever listeners do: what is unread at most, and a little for each of those who keep up."""
    monkeypatch.setattr(streaming, "MAX_UNREAD_S", 20.0)
    monkeypatch.setattr(streaming, "ENOUGH_UNREAD_S", 3.0)
    voice, engine = fake
    voice.gate.set()
    done, deaf = ask(engine, "done:15"), ask(engine, "deaf:40")
    until = time.monotonic() + 10
    while done.unread_s + deaf.unread_s <= 20 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    waiting = done.unread_s + deaf.unread_s  # of one that is done, too
    assert 20 < waiting <= 22
    assert ask(engine, "reads:30").speech().seconds == 30
    assert done.unread_s + deaf.unread_s == waiting
    assert deaf.speech().seconds == 40
    done.cancel()
    assert done.unread_s == 0


def test_no_more_requests_than_may_be_active_whoever_asks_at_once() -> None:
    voice = FakeSource()
    engine = StreamingEngine(voice, max_active=3, clock=voice.clock)

    def tried(number: int) -> Ticket | Overloaded:
        try:
            return ask(engine, f"{number}:2")
        except Overloaded as error:
            return error

    with ThreadPoolExecutor(12) as threads:
        outcomes = list(threads.map(tried, range(12)))
    tickets = [outcome for outcome in outcomes if isinstance(outcome, Ticket)]
    assert len(tickets) == 3 == engine.stats().active
    drain(voice, tickets)
    assert ask(engine, "more:1").speech().seconds == 1
    engine.close()


def test_a_failing_request_harms_no_other() -> None:
    voice = FakeSource()
    engine = StreamingEngine(voice, clock=voice.clock)
    hold(voice, engine)
    voice.fails = {
        "bad": ZeroDivisionError("tripped"),
        "mute": TextError("no sound"),
        "big": MemoryError("no room"),
        "gpu": torch.OutOfMemoryError("no room"),
    }
    good = [ask(engine, f"good{i}:3") for i in range(3)]
    failing = {name: ask(engine, f"{name}:3") for name in voice.fails}
    drain(voice, good)
    for name, ticket in failing.items():
        with pytest.raises(type(voice.fails[name])) as caught:
            list(ticket.chunks())
        assert caught.value is voice.fails[name]
    with pytest.raises(TextError, match="nothing to say"):
        ask(engine, "")
    assert engine.alive and ask(engine, "later:2").speech().seconds == 2
    engine.close()


def test_close_under_load_ends_every_ticket() -> None:
    voice = FakeSource()
    engine = StreamingEngine(voice, clock=voice.clock)
    tickets = [ask(engine, f"{i}:50") for i in range(2)]
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(lambda ticket: list(ticket.chunks()), ticket) for ticket in tickets]
        closing = pool.submit(engine.close)
        time.sleep(0.05)
        voice.gate.set()
        closing.result(10)
        for reader in readers:
            with pytest.raises(EngineClosed):
                reader.result(10)
    assert not engine.alive and len(voice.log) <= 2
    with pytest.raises(EngineClosed):
        ask(engine, "late:1")
    engine.close()


def test_a_thread_that_stops_takes_no_one_with_it() -> None:
    """A fault of the engine itself ends all tickets with its reason, and later requests are refused."""
    voice = FakeSource()
    engine = StreamingEngine(voice, clock=voice.clock)
    hold(voice, engine)
    voice.fails = {"exit": SystemExit(3)}
    tickets = [ask(engine, "a:3"), ask(engine, "exit:1"), ask(engine, "b:3")]
    voice.gate.set()
    for ticket in tickets:
        with pytest.raises(EngineClosed, match="SystemExit"):
            list(ticket.chunks())
    assert not engine.alive
    with pytest.raises(EngineClosed, match="SystemExit"):
        ask(engine, "c:1")
    engine.close()


# --- readers ----------------------------------------------------------------------------------------------------------


def test_event_loops_and_threads_read_at_once(engine: StreamingEngine) -> None:
    request = SynthesisRequest(text="Good morning to you all.", seed=5)
    expected = engine.submit(request).speech()

    async def listen(cancel: bool) -> Speech | None:
        ticket = engine.submit(request)
        if cancel:
            asyncio.get_running_loop().call_later(0.001, ticket.cancel)
        try:
            return join([chunk async for chunk in ticket])
        except Cancelled:
            return None

    async def many() -> list[Speech | None]:
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(heart())
        heard = await asyncio.wait_for(asyncio.gather(*(listen(i % 5 == 4) for i in range(10))), 30)
        beating.cancel()
        assert beats > 3, "the loop was not blocked"
        return heard

    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(lambda: engine.submit(request).speech()) for _ in range(6)]
        heard = [*asyncio.run(many()), *(thread.result(30) for thread in threads)]
    speeches = [speech for speech in heard if speech is not None]
    assert len(speeches) >= 14
    for speech in speeches:
        np.testing.assert_allclose(speech.waveform, expected.waveform, atol=1e-4)


def test_what_cannot_be_spoken_is_refused_at_once(engine: StreamingEngine) -> None:
    for bad in (
        SynthesisRequest(text=""),
        SynthesisRequest(text="日本語。日本語。"),
        SynthesisRequest(text="Hello.", speed=99.0),
        SynthesisRequest(text="Hello.", steps=-1),
        SynthesisRequest(text="Hello.", speaker="Nobody"),
        SynthesisRequest(text="Hello.", grid="zigzag"),
        SynthesisRequest(text=None),  # type: ignore[arg-type]
    ):
        with pytest.raises(FlowTTSError):
            engine.submit(bad)
    assert engine.stats().requests == 0


def test_sound_that_the_model_cannot_make_fails_alone(tmp_path: Path) -> None:
    synthesizer = FlowSynthesizer.load(make_voice(tmp_path / "amy"))
    zed = set(synthesizer.frontend.encode("Zoo.").tokens) - set(synthesizer.frontend.encode("Who.").tokens)
    with torch.no_grad():
        synthesizer.voice.acoustic.runners = {}
        synthesizer.voice.acoustic.encoder.emb.weight[list(zed)] = float("nan")
    engine = StreamingEngine(synthesizer, threads=1)
    tickets = [engine.submit(SynthesisRequest(text=text)) for text in ("Hello.", "A zebra.", "Good. A zebra. Good.")]
    assert tickets[0].speech().seconds > 0
    for ticket in tickets[1:]:
        with pytest.raises(FlowTTSError, match="nan frames"):
            ticket.speech()
    engine.close()


def test_nothing_of_a_request_stays(engine: StreamingEngine) -> None:
    tickets = [engine.submit(SynthesisRequest(text=STORY, seed=i)) for i in range(3)]
    tickets[0].cancel()
    for ticket in tickets[1:]:
        ticket.speech()
    watched = [weakref.ref(ticket) for ticket in tickets]
    del tickets, ticket
    engine.submit(SynthesisRequest(text="Yes.")).speech()
    time.sleep(0.05)
    gc.collect()
    assert [ref() for ref in watched] == [None] * 3
