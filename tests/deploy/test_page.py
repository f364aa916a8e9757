"""The page in headless Chromium, against the real HTTP interface before a speaker that takes its time."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.keys import add_key, new_key
from deploy.settings import RequestLimits, Settings, served_voices
from deploy.speech import Refusal, SoundPiece, SpeechJob
from flowtts_core.audio.files import read_audio, to_int16
from flowtts_core.engines.base import WordTime
from flowtts_core.voice.card import FLOW_VOICE

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium", allow_module_level=True)

RATE, PIECE = 22050, 2048
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
).split()
# What the browser hears: each piece that is handed to it, and when it starts.
LISTEN = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  heard.push({ when, duration: this.buffer.duration, rate: this.buffer.sampleRate, samples: [...this.buffer.getChannelData(0)] });
  return start.call(this, when);
};
"""


class SlowSpeaker:
    """A voice of tones whose pitch is the word's: `pause_s` after each piece; refuses where told so."""

    def __init__(self) -> None:
        self.pause_s = 0.01
        self.refusal: Refusal | None = None
        self.jobs: list[SpeechJob] = []
        self.sent = 0
        self.stopped = threading.Event()
        self.break_after: int | None = None

    async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        self.jobs.append(job)
        if self.refusal:
            yield self.refusal
            return
        samples, words = spoken(job)
        try:
            for start in range(0, len(samples), PIECE):
                if self.break_after == start // PIECE:
                    yield Refusal("unspeakable", "the rest cannot be said")
                    return
                new = tuple(w for w in words if start <= w.start_s * RATE < start + PIECE)
                self.sent += 1
                yield SoundPiece(RATE, samples[start : start + PIECE].tobytes(), new)
                await asyncio.sleep(self.pause_s)
        finally:
            self.stopped.set()

    async def ready(self) -> bool:
        return True


def spoken(job: SpeechJob) -> tuple[np.ndarray, list[WordTime]]:
    """[S] int16 of a job, 0.25 s a word, and its words."""
    words, parts, at, length = [], [], 0, round(RATE / 4 / job.request.speed)
    for index, word in enumerate(job.text.split()):
        start = job.text.index(word, at)
        at = start + len(word)
        words.append(WordTime(word, start, at, index * length / RATE, (index + 1) * length / RATE))
        parts.append(0.3 * np.sin(2 * np.pi * (200 + 40 * (index % 8)) * np.arange(length) / RATE))
    return to_int16(np.concatenate(parts)).astype("<i2"), words


class NoMeters:
    """Counts nothing, whatever it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextmanager
def serving(speaker: SlowSpeaker, settings: Settings) -> Iterator[str]:
    """The address of the interface, served from a thread."""
    import uvicorn

    from deploy.api import create_app
    from deploy.front import Front

    app = create_app(Front(settings, speaker, NoMeters()))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def speaker() -> SlowSpeaker:
    return SlowSpeaker()


@pytest.fixture
def address(speaker: SlowSpeaker) -> Iterator[str]:
    with serving(speaker, Settings(served_voices([FLOW_VOICE]), cache_bytes=0)) as url:
        yield url


class Tab:
    """A page, and everything it asked for and complained of."""

    def __init__(self, browser: Any, url: str, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.add_init_script(LISTEN)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url
        self.page.goto(url)

    def wait(self, condition: str, seconds: float = 10.0) -> None:
        """Until the page says so; `wait_for_function` would need the eval that the page's own policy forbids."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not true after {seconds} s: {condition}"
            self.page.wait_for_timeout(20)

    def text(self, name: str) -> str:
        return str(self.page.inner_text(f"#{name}"))


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Any]:
    tabs: list[Tab] = []

    def opened(url: str, **kwargs: Any) -> Tab:
        tabs.append(Tab(browser, url, **kwargs))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
        strangers = [url for url in tab.asked if not url.startswith((tab.url, "data:", f"blob:{tab.url}"))]
        assert strangers == []
        # Chromium itself reports every status of 400 or more; the page's own complaints are ours.
        assert [c for c in tab.complaints if "Failed to load resource" not in c] == []


def test_it_speaks_by_keyboard_before_the_sound_is_whole(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    speaker.pause_s = 0.1  # as long as the sound itself
    tab = open_tab(address)
    tab.wait(f"$('voice').value === '{FLOW_VOICE}'")
    tab.page.keyboard.press("Control+A")  # the text has the focus from the start
    tab.page.keyboard.type("one two three four five six seven eight")
    tab.page.keyboard.press("Control+Enter")
    tab.wait("speech && speech.position > 0.1")
    assert tab.page.evaluate("speech.receiving"), "sound began only when all of it had come"
    assert not speaker.stopped.is_set()
    assert tab.text("speak-text") == "Stop"
    tab.wait("!speech.receiving && !speech.playing")
    job = speaker.jobs[0]
    assert (job.text, job.voice, job.stream, job.words) == (
        "one two three four five six seven eight",
        FLOW_VOICE,
        True,
        True,
    )
    assert 0 < float(tab.text("first").split()[0]) < 5000
    assert tab.text("length") == "2.00 s"
    assert "2.0 seconds" in tab.text("live")
    assert tab.text("speak-text") == "Speak"
    assert tab.page.evaluate("document.activeElement.id") == "text"


def test_what_is_heard_is_what_was_sent_without_a_gap(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    speaker.pause_s = 0  # a gap would then be the page's own
    tab = open_tab(address)
    tab.page.fill("#text", "one two three four five six seven eight")
    tab.page.click("#speak")
    tab.wait("speech && !speech.receiving && !speech.playing")
    heard = tab.page.evaluate("heard")
    sound = np.concatenate([piece["samples"] for piece in heard])
    np.testing.assert_allclose(sound, spoken(speaker.jobs[0])[0] / 32768, atol=1e-7)
    assert {piece["rate"] for piece in heard} == {RATE}
    ends = np.array([piece["when"] + piece["duration"] for piece in heard])
    np.testing.assert_allclose([piece["when"] for piece in heard[1:]], ends[:-1], atol=1e-9)
    tab.page.evaluate("heard.length = 0")
    tab.page.click("#replay")
    assert len(tab.page.evaluate("heard")[0]["samples"]) == len(sound)
    assert len(speaker.jobs) == 1, "playing again asks for nothing"


@pytest.mark.parametrize("by", ["Escape", "button"])
def test_stopping_stops_the_server_too(address: str, speaker: SlowSpeaker, open_tab: Any, by: str) -> None:
    speaker.pause_s = 0.1
    tab = open_tab(address)
    tab.page.fill("#text", "word " * 200)
    tab.page.keyboard.press("Control+Enter")
    tab.wait("speech && speech.count > 0")
    if by == "button":
        tab.page.click("#speak")
    else:
        tab.page.keyboard.press("Escape")
    until(speaker.stopped.is_set, 5)
    assert speaker.sent < 200 * RATE / 4 / PIECE / 2
    assert tab.text("speak-text") == "Speak"
    assert tab.text("live") == "Stopped."
    assert tab.page.evaluate("speech.player.context.state") == "closed"


def test_words_are_marked_as_they_are_heard(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    """In place, in order, and after a character that JavaScript counts as two."""
    tab = open_tab(address)
    tab.page.fill("#text", "\N{SMILING FACE WITH OPEN MOUTH} alpha beta gamma delta")
    tab.page.evaluate(
        "window.marked = []; new MutationObserver(() => { const m = document.querySelector('#marks mark');"
        " if (m) marked.push(m.textContent); }).observe($('marks'), { childList: true });"
    )
    tab.page.keyboard.press("Control+Enter")
    tab.wait("speech && !speech.receiving && !speech.playing")
    # The page takes the last mark away when it draws next, which may be after the last sound.
    tab.wait("!document.querySelector('#marks mark')")
    assert tab.page.evaluate("marked")[-4:] == ["alpha", "beta", "gamma", "delta"]


def test_a_long_text_follows_the_voice(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    """The word that is heard stays in sight, and its mark lies on it although both have scrolled."""
    speaker.pause_s = 0
    tab = open_tab(address)
    tab.page.fill("#text", "line of words\n" * 14 + "end")
    tab.page.fill("#speed", "2")
    tab.page.evaluate("$('text').scrollTop = 0")
    tab.page.keyboard.press("Control+Enter")
    tab.wait("document.querySelector('#marks mark')")
    assert tab.page.evaluate("$('text').scrollTop") == 0
    tab.wait("speech.position > 4.5 && document.querySelector('#marks mark')")
    text, mark, scrolled = tab.page.evaluate(
        "(() => { const box = (e) => e.getBoundingClientRect(), m = document.querySelector('#marks mark');"
        " return [box($('text')), box(m), [$('text').scrollTop, $('marks').scrollTop]]; })()"
    )
    assert text["top"] <= mark["top"] <= mark["bottom"] <= text["bottom"]
    assert scrolled[0] == scrolled[1] > 0


@pytest.mark.parametrize("response_format", ["mp3", "wav", "pcm"])
def test_the_download_has_the_right_sound(
    address: str, speaker: SlowSpeaker, open_tab: Any, tmp_path: Path, response_format: str
) -> None:
    tab = open_tab(address)
    tab.page.fill("#text", "one two three four")
    tab.page.select_option("#format", response_format)
    with tab.page.expect_download() as waiting:
        tab.page.click("#download")
    assert waiting.value.suggested_filename == f"speech.{response_format}"
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    if response_format == "pcm":
        assert abs(path.stat().st_size / 2 / 24_000 - 1.0) < 0.001
    else:
        waveform, rate = read_audio(path)
        assert -0.001 < len(waveform) / rate - 1.0 < (0.001 if response_format == "wav" else 0.12)


def test_the_copied_curl_does_the_same(address: str, speaker: SlowSpeaker, open_tab: Any, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    text = 'It\'s "quoted" $HOME\nand\\so on'
    tab = open_tab(address)
    tab.wait(f"$('voice').value === '{FLOW_VOICE}'")
    tab.page.fill("#text", text)
    tab.page.select_option("#format", "flac")
    tab.page.fill("#speed", "1.25")
    tab.page.click("#copy")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied == tab.text("curl")
    subprocess.run(["sh", "-c", copied], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    job = speaker.jobs[-1]
    assert (job.text, job.voice, job.request.speed) == (text, FLOW_VOICE, 1.25)
    assert (tmp_path / "speech.flac").read_bytes()[:4] == b"fLaC"


def test_the_key_is_asked_for_only_when_needed(speaker: SlowSpeaker, open_tab: Any, tmp_path: Path) -> None:
    secret, key = new_key("reader")
    add_key(tmp_path / "keys", key)
    with serving(speaker, Settings(served_voices([FLOW_VOICE]), keys=str(tmp_path / "keys"))) as url:
        tab = open_tab(url)
        tab.wait("!$('key-form').hidden && document.activeElement.id === 'key'")
        assert not tab.page.is_visible("#notice")
        tab.page.keyboard.type("ftts-wrong")
        tab.page.keyboard.press("Enter")
        tab.wait("!$('notice').hidden")
        assert "refused" in tab.text("notice-title")
        tab.page.fill("#key", secret)
        tab.page.keyboard.press("Enter")
        tab.wait(f"$('key-form').hidden && $('voice').value === '{FLOW_VOICE}'")
        assert not tab.page.is_visible("#notice")
        tab.page.keyboard.press("Control+Enter")
        tab.wait("speech && speech.count > 0")
        curl = tab.text("curl")
        assert secret not in curl
        assert "$FLOWTTS_API_KEY" in curl


def test_no_key_is_asked_for_where_none_is_needed(address: str, open_tab: Any) -> None:
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")
    assert not tab.page.is_visible("#key-form")
    assert "Authorization" not in tab.text("curl")


def test_a_busy_server_is_tried_again_when_it_says_so(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    speaker.refusal = Refusal("overloaded", retry_after_s=2.0)
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")
    tab.page.keyboard.press("Control+Enter")
    tab.wait("!$('notice').hidden")
    assert tab.text("notice-title") == "The server is busy"
    assert tab.text("again") == "Try again in 2 s"
    assert tab.page.is_disabled("#again")
    speaker.refusal = None
    tab.wait("!$('again').disabled")
    tab.page.click("#again")
    tab.wait("speech.count > 0")
    assert not tab.page.is_visible("#notice")


def test_failures_say_what_is_wrong(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")

    def failed(text: str) -> tuple[str, str]:
        tab.page.fill("#text", text)
        tab.page.keyboard.press("Control+Enter")
        tab.wait("speech && !speech.receiving && !speech.playing && !$('notice').hidden")
        return tab.text("notice-title"), tab.text("notice-text")

    speaker.break_after = 2
    title, reason = failed("one two three four five")
    assert title == "The voice broke off"
    assert reason == "The rest cannot be said"
    tab.page.focus("#text")
    tab.page.keyboard.type(" six")  # another text: what was wrong with the last is over
    assert not tab.page.is_visible("#notice")
    assert tab.text("state-text") == "ready"
    assert tab.page.evaluate("speech.count") == 2 * PIECE  # what came was heard
    tab.page.fill("#text", "  ")
    tab.page.keyboard.press("Control+Enter")
    assert "no text" in tab.text("live")
    tab.context.set_offline(True)
    assert failed("one")[0] == "The server does not answer"
    tab.context.set_offline(False)
    tab.page.select_option("#format", "wav")
    assert not tab.page.is_visible("#notice")


def test_a_text_is_counted_before_it_is_sent(speaker: SlowSpeaker, open_tab: Any) -> None:
    """One limit for speaking, the download and the shown request; within it, all three work."""
    with serving(speaker, Settings(served_voices([FLOW_VOICE]), limits=RequestLimits(chars=5000))) as url:
        tab = open_tab(url)
        tab.wait("$('state').dataset.state === 'ready'")
        tab.page.fill("#text", "\N{GRINNING FACE}" * 5001)
        assert tab.text("count") == "5,001 of 5,000 characters: 1 too many"
        assert tab.page.get_attribute("#text", "aria-invalid") == "true"
        asked = len(tab.asked)
        for deed in ("speak()", "download()"):
            tab.page.evaluate(f"() => {{ show(null); {deed} }}")
            assert tab.text("notice-title") == "The text is too long"
            assert "5,001 characters, and this server takes 5,000" in tab.text("notice-text")
        assert tab.text("curl").startswith("# The text has 5,001 characters")
        assert tab.page.is_disabled("#copy")
        assert len(tab.asked) == asked
        assert speaker.jobs == []
        tab.page.fill("#text", "word" * 1250)
        assert not tab.page.is_visible("#notice")
        assert tab.text("count") == "5,000 of 5,000 characters"
        tab.page.fill("#speed", "2")
        with tab.page.expect_download() as waiting:
            tab.page.click("#download")
        assert waiting.value.suggested_filename == "speech.mp3"
        assert [len(job.text) for job in speaker.jobs] == [5000]
        assert tab.page.evaluate("JSON.parse(curl().match(/-d '(.*)'/)[1]).input.length") == 5000


def test_a_download_tells_how_far_it_is_and_can_be_cancelled(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    speaker.pause_s = 0.1
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")
    tab.page.fill("#text", "word " * 200)
    tab.page.select_option("#format", "wav")
    tab.page.click("#download")
    tab.wait("/: [1-9][0-9]* kB$/.test($('fetched-text').textContent)")
    assert tab.page.is_visible("#fetched")
    assert tab.text("download") == "Cancel"
    tab.page.click("#download")
    until(speaker.stopped.is_set, 5)
    tab.wait("$('fetching').hidden")
    assert (tab.text("download"), tab.text("live")) == ("Download WAV", "Download cancelled.")
    assert not tab.page.is_visible("#notice")


def test_the_last_try_is_what_is_tried_again(address: str, speaker: SlowSpeaker, open_tab: Any) -> None:
    speaker.refusal = Refusal("overloaded", retry_after_s=1.0)
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")
    tab.page.fill("#text", "one two")
    tab.page.click("#download")
    tab.wait("!$('again').disabled && !$('notice').hidden")
    speaker.refusal = None
    with tab.page.expect_download():
        tab.page.click("#again")
    assert not tab.page.is_visible("#notice")


def test_a_page_of_another_origin_uses_the_api_as_openais_client_does(speaker: SlowSpeaker, browser: Any) -> None:
    """In a browser, which asks before it sends headers that are not plain: `localhost` is another origin than `127.0.0.1`."""
    settings = Settings(served_voices([FLOW_VOICE]), origins=("*",))
    with serving(speaker, settings) as url:
        context = browser.new_context()
        page = context.new_page()
        page.goto(url.replace("127.0.0.1", "localhost") + "healthz")
        status, speech_id, length = page.evaluate(
            """async (address) => {
              const headers = { "Content-Type": "application/json", Authorization: "Bearer none", "X-Stainless-Lang": "js",
                "X-Stainless-Retry-Count": "0", "X-Stainless-Runtime": "browser:chrome", "OpenAI-Organization": "o" };
              const body = JSON.stringify({ model: "tts-1", voice: "alloy", input: "one two", response_format: "wav" });
              const answer = await fetch(`${address}v1/audio/speech`, { method: "POST", headers, body });
              return [answer.status, answer.headers.get("X-Speech-Id"), (await answer.arrayBuffer()).byteLength];
            }""",
            url,
        )
        assert (status, length) == (200, 44 + 2 * len(spoken(speaker.jobs[0])[0]))
        assert len(speech_id) > 20
        context.close()


def test_a_player_seeks_in_an_answer(speaker: SlowSpeaker, browser: Any) -> None:
    """By its id, as a file: the browser's own player knows its length and asks for parts."""
    speaker.pause_s = 0
    with serving(speaker, Settings(served_voices([FLOW_VOICE]))) as url:
        context = browser.new_context()
        page, ranges = context.new_page(), []
        page.on("response", lambda answer: ranges.append((answer.status, answer.headers.get("content-range"))))
        page.goto(f"{url}healthz")
        duration, reached = page.evaluate(
            """async (text) => {
              const headers = { "Content-Type": "application/json" }, body = JSON.stringify({ text, response_format: "wav" });
              const answer = await fetch("/tts", { method: "POST", headers, body });
              await answer.arrayBuffer();
              const audio = new Audio(`/v1/audio/speech/${answer.headers.get("X-Speech-Id")}`);
              const once = (name) => new Promise((done, failed) => {
                audio.addEventListener(name, done, { once: true });
                audio.onerror = () => failed(new Error(audio.error.message));
              });
              audio.preload = "metadata";
              await once("loadedmetadata");
              audio.currentTime = 80;
              await once("seeked");
              return [audio.duration, audio.currentTime];
            }""",
            "word " * 400,
        )
        assert duration == pytest.approx(len(spoken(speaker.jobs[0])[0]) / RATE, abs=0.01)
        assert reached == 80
        assert len([status for status, part in ranges if status == 206 and part]) >= 1
        context.close()


def test_without_javascript_the_page_says_so(address: str, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.is_visible("noscript h2")
    assert "/v1/audio/speech" in page.inner_text("noscript pre")
    assert not page.is_visible("#form")
    context.close()


def test_the_description_of_the_api_comes_with_the_key(speaker: SlowSpeaker, open_tab: Any, tmp_path: Path) -> None:
    secret, key = new_key("reader")
    add_key(tmp_path / "keys", key)
    with serving(speaker, Settings(served_voices([FLOW_VOICE]), keys=str(tmp_path / "keys"))) as url:
        tab = open_tab(url)
        tab.wait("document.activeElement.id === 'key'")
        tab.page.click("#description")
        assert tab.page.url == url
        tab.page.fill("#key", secret)
        tab.page.keyboard.press("Enter")
        tab.wait("$('key-form').hidden && voices.length")
        with tab.page.expect_download() as waiting:
            tab.page.click("#description")
        assert "/v1/audio/speech" in Path(waiting.value.path()).read_text()


def test_the_keyboard_reaches_everything_in_reading_order(address: str, open_tab: Any) -> None:
    tab = open_tab(address)
    tab.wait("$('state').dataset.state === 'ready'")
    order = ["text"]
    for _ in range(7):
        tab.page.keyboard.press("Tab")
        order.append(tab.page.evaluate("document.activeElement.id"))
    assert order == ["text", "speak", "voice", "speed", "format", "download", "copy", "curl"]
    unnamed = tab.page.evaluate(
        "[...document.querySelectorAll('input, select, textarea, button')]"
        ".filter((e) => !e.labels?.length && !e.textContent.trim()).map((e) => e.id)"
    )
    assert unnamed == []


def test_fourier_transform_and_mel_are_right(address: str, open_tab: Any) -> None:
    tab = open_tab(address)
    signal = np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    got = tab.page.evaluate(
        "(signal) => { const m = new MelMeter(22050); m.re.set(signal); m.fft(); return [[...m.re], [...m.im]]; }",
        signal.tolist(),
    )
    np.testing.assert_allclose(np.array(got[0]) + 1j * np.array(got[1]), np.fft.fft(signal), atol=2e-3)
    for hertz in (300, 1000, 4000):
        tone = to_int16(0.5 * np.sin(2 * np.pi * hertz * np.arange(8192) / RATE))
        frame, edges = tab.page.evaluate(
            "(tone) => { const m = new MelMeter(22050); m.add(Int16Array.from(tone)); return [[...m.frames[10]], m.edges]; }",
            tone.tolist(),
        )
        best = int(np.argmax(frame))
        assert edges[best] * RATE / 1024 <= hertz <= edges[best + 2] * RATE / 1024


COLOURS = """
() => [...document.querySelectorAll('body *')].flatMap((e) => {
  const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!words && !['INPUT', 'TEXTAREA', 'SELECT'].includes(e.tagName)) return [];
  if (!e.checkVisibility({ visibilityProperty: true }) || e.closest('.away, .marks, script, select > *')) return [];
  const paper = (of) => getComputedStyle(of).backgroundColor;
  let behind = e;
  while (paper(behind) === 'rgba(0, 0, 0, 0)' && behind.parentElement) behind = behind.parentElement;
  return [[e.id || e.tagName + ' ' + e.textContent.slice(0, 20), getComputedStyle(e).color, paper(behind)]];
})
"""

# The borders of what can be used, and what lies within and around them.
EDGES = """
() => [...document.querySelectorAll('button, select, input[type=password]')].flatMap((e) => {
  if (!e.checkVisibility() || e.disabled || e.id === 'speak') return [];
  const paper = (of) => getComputedStyle(of).backgroundColor, edge = getComputedStyle(e).borderTopColor;
  let around = e.parentElement;
  while (paper(around) === 'rgba(0, 0, 0, 0)') around = around.parentElement;
  return [e, around].map((of) => [e.id || e.textContent, edge, paper(of)]);
})
"""


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two CSS colours `rgb(r, g, b)`."""

    def luminance(colour: str) -> float:
        parts = np.array([int(v) for v in colour.removeprefix("rgb(").rstrip(")").split(",")]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(address: str, speaker: SlowSpeaker, open_tab: Any, scheme: str, width: int) -> None:
    """At both widths in both schemes, idle, with sound and with every message: nothing overflows, contrast is 4.5 or more."""
    tab = open_tab(address, width=width, scheme=scheme)
    tab.wait("$('state').dataset.state === 'ready'")
    tab.page.fill("#text", "unbroken" * 40 + " and words")
    states = ["", "$('key-form').hidden = false; show(new Trouble('Title', 'text'.repeat(60), 0))"]
    for step in (*states, "speak()"):
        tab.page.evaluate(f"() => {{ {step} }}")
        if step == "speak()":
            tab.wait("speech && !speech.receiving && !speech.playing")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        pairs = tab.page.evaluate(COLOURS)
        assert len(pairs) > 12
        weak = [(name, round(contrast(ink, paper), 2)) for name, ink, paper in pairs if contrast(ink, paper) < 4.5]
        assert weak == []
        edges = tab.page.evaluate(EDGES)
        assert len(edges) > 4
        weak = [(name, round(contrast(edge, paper), 2)) for name, edge, paper in edges if contrast(edge, paper) < 3]
        assert weak == []
    painted = tab.page.evaluate(
        "() => { const c = $('canvas'), image = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        " return new Set(new Uint32Array(image.data.buffer)).size; }"
    )
    assert painted > 20, "the picture is empty"


def test_a_marked_word_can_be_read(address: str, open_tab: Any) -> None:
    for scheme in ("light", "dark"):
        tab = open_tab(address, scheme=scheme)
        ink, paper = tab.page.evaluate(
            "() => { $('marks').innerHTML = '<mark>x</mark>';"
            " return [getComputedStyle($('text')).color, getComputedStyle($('marks').firstChild).backgroundColor]; }"
        )
        assert contrast(ink, paper) >= 4.5
