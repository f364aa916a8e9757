"""Send load to a server: one by one, by several users at once, or at random times (Poisson); and sum up the answers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowtts_core.text.sentences import split_sentences

DEMO = Path(__file__).resolve().parents[1] / "demo" / "alice-chapter-1.txt"
PCM_RATE = 24_000  # of the format pcm
MIX = (("short", 0.6), ("medium", 0.3), ("long", 0.1))  # of requests, by the length of their texts
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Answered:
    """One request, from the client's side.

    Attributes:
        kind: the kind of its text, a key of `MIX`.
        began: seconds since the load began.
        first_s: from the request to the first byte of sound; None where none came.
        audio_s: seconds of sound that came.
        status: the HTTP status; 0 where the connection broke before an answer.
        whole: whether the answer ended as it should.
    """

    kind: str
    began: float
    first_s: float | None
    last_s: float
    audio_s: float
    status: int
    whole: bool
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether it was answered with sound, to the end."""
        return self.status == 200 and self.whole and self.audio_s > 0.1


def sentences_of(words: int, n: int) -> list[str]:
    """Return `n` different sentences of so many words each, cut from the demo chapter."""
    text = [w.strip("“”‘’()*_—-") for w in DEMO.read_text(encoding="utf-8").split()]
    text = [w for w in text if w.isascii() and any(c.isalpha() for c in w)]
    step = max(1, (len(text) - words) // n)
    found = [" ".join(text[i * step : i * step + words]).rstrip(",;:.!?") + "." for i in range(n)]
    return [sentence[0].upper() + sentence[1:] for sentence in found]


def mixed_texts(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return `n` (kind, text) in the proportions of `MIX`: a phrase, a sentence, or a paragraph of five sentences."""
    rng = random.Random(seed)
    whole = [sentence.text for sentence in split_sentences(DEMO.read_text(encoding="utf-8"))]
    pools = {"short": sentences_of(5, 60), "medium": sentences_of(14, 60)}
    kinds = rng.choices([kind for kind, _ in MIX], [share for _, share in MIX], k=n)
    texts = []
    for kind in kinds:
        at = rng.randrange(len(whole) - 5)
        texts.append((kind, rng.choice(pools[kind]) if kind in pools else " ".join(whole[at : at + 5])[:1200]))
    return texts


async def ask(session: Any, url: str, kind: str, text: str, since: float) -> Answered:
    """Send one request to `POST /v1/audio/speech`, streamed as PCM."""
    import aiohttp

    sent = time.perf_counter()
    first, size, status, whole, error = None, 0, 0, False, ""
    body = {"model": "flowtts", "voice": "alloy", "input": text, "response_format": "pcm"}
    try:
        async with session.post(f"{url}/v1/audio/speech", json=body) as response:
            status = response.status
            async for piece in response.content.iter_any():
                if status == 200 and first is None:
                    first = time.perf_counter() - sent
                size += len(piece)
            whole = size % 2 == 0
            if status == 503 and "Retry-After" not in response.headers:
                error = "503 without Retry-After"
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    audio_s = size / 2 / PCM_RATE if status == 200 else 0.0
    return Answered(kind, sent - since, first, time.perf_counter() - sent, audio_s, status, whole, error)


def one_by_one(url: str, texts: Sequence[tuple[str, str]]) -> list[Answered]:
    """Send each request after the answer to the one before, as one user."""
    return at_once(url, texts, 1)


def at_once(url: str, texts: Iterable[tuple[str, str]], users: int) -> list[Answered]:
    """Send requests by so many users, each of whom asks again once answered (a closed loop)."""

    async def load() -> list[Answered]:
        since, left, done = time.perf_counter(), iter(texts), []

        async def user(session: Any) -> None:
            for kind, text in left:
                done.append(await ask(session, url, kind, text, since))

        async with _session() as session:
            await asyncio.gather(*(user(session) for _ in range(users)))
        return done

    return asyncio.run(load())


def as_they_come(
    url: str, texts: Sequence[tuple[str, str]], per_s: float, seconds: float, seed: int = 0
) -> list[Answered]:
    """Send requests at random times, so many a second on average, answered or not (an open loop)."""

    async def load() -> list[Answered]:
        rng, since, asked, number = random.Random(seed), time.perf_counter(), [], 0
        async with _session() as session:
            at = rng.expovariate(per_s)
            while at < seconds:
                await asyncio.sleep(max(0.0, since + at - time.perf_counter()))
                kind, text = texts[number % len(texts)]
                asked.append(asyncio.ensure_future(ask(session, url, kind, text, since)))
                number, at = number + 1, at + rng.expovariate(per_s)
            return list(await asyncio.gather(*asked))

    return asyncio.run(load())


def _session() -> Any:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def summed(answers: Sequence[Answered]) -> dict[str, Any]:
    """Return latency percentiles of the first sound, goodput, and failures by kind."""
    return summed_loads([answers])


def summed_loads(loads: Sequence[Sequence[Answered]]) -> dict[str, Any]:
    """Return the same for several loads. The pauses between them do not count."""
    answers = [answer for load in loads for answer in load]
    good = [answer for answer in answers if answer.good]
    span = sum(max(a.began + a.last_s for a in load) - min(a.began for a in load) for load in loads if load)
    bad = [a for a in answers if not a.good and a.status != 503]
    return {
        "requests": len(answers),
        "good": len(good),
        "refused": sum(a.status == 503 for a in answers),
        "lost_before_sound": sum(a.first_s is None for a in bad),
        "cut_in_sound": sum(a.first_s is not None for a in bad),
        "first_s": percentiles([a.first_s for a in good if a.first_s is not None]),
        "first_s_by_kind": {
            kind: percentiles([a.first_s for a in good if a.kind == kind and a.first_s is not None]) for kind, _ in MIX
        },
        "audio_s": sum(a.audio_s for a in good),
        "seconds": span,
        "goodput": sum(a.audio_s for a in good) / span if span else 0.0,  # seconds of sound a second
        "statuses": {str(status): n for status, n in sorted(Counter(a.status for a in answers).items())},
        "errors": dict(Counter(a.error for a in answers if a.error).most_common(5)),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return p50, p90, p99 and the maximum in seconds; None without values."""
    if not seconds:
        return None
    found = np.quantile(seconds, [0.5, 0.9, 0.99, 1.0])
    return {name: float(value) for name, value in zip(("p50", "p90", "p99", "max"), found, strict=True)}
