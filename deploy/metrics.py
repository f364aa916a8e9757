"""The server's own figures, which Ray exports beside its own in Prometheus's form.

Ray adds `ray_` before the names. The port is each node's `MetricsExportPort` (`ray.nodes()`), which
`ray start --metrics-export-port` fixes; it asks for no key, so a network policy must guard it.
"""

from __future__ import annotations

from typing import Protocol

SECONDS = [0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30]
RATIOS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5]


class Meters(Protocol):
    """What the front reports."""

    def first_audio(self, voice: str, seconds: float) -> None: ...
    def spoken(self, voice: str, audio_s: float, wall_s: float) -> None: ...
    def retried(self) -> None: ...
    def cached(self, hit: bool) -> None: ...
    def answered(self, status: int, code: str) -> None: ...


class RayMeters:
    """By `ray.util.metrics`, of a front."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Histogram

        self._first = Histogram(
            "flowtts_time_to_first_audio_seconds", "From a valid request to its first sound.", SECONDS, ("voice",)
        )
        self._rtf = Histogram("flowtts_rtf", "Seconds that an answer took, for each second of it.", RATIOS, ("voice",))
        self._audio = Counter("flowtts_audio_seconds", "Audio made.", ("voice",))
        self._retries = Counter("flowtts_retries", "Jobs that went on at another replica.")
        self._cache = Counter("flowtts_cache_lookups", "Answers looked up in the cache.", ("result",))
        self._requests = Counter("flowtts_requests", "Requests answered; `code` is the error's.", ("status", "code"))

    def first_audio(self, voice: str, seconds: float) -> None:
        self._first.observe(seconds, {"voice": voice})

    def spoken(self, voice: str, audio_s: float, wall_s: float) -> None:
        if audio_s > 0:
            self._audio.inc(audio_s, {"voice": voice})
            self._rtf.observe(wall_s / audio_s, {"voice": voice})

    def retried(self) -> None:
        self._retries.inc()

    def cached(self, hit: bool) -> None:
        self._cache.inc(1, {"result": "hit" if hit else "miss"})

    def answered(self, status: int, code: str) -> None:
        self._requests.inc(1, {"status": str(status), "code": code})


class EngineMeters:
    """By `ray.util.metrics`, of a replica: the mean batch size is pieces / batches, load is the rate of busy seconds."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self._queued = Gauge("flowtts_queued_audio_seconds", "Audio still to make, estimated.")
        self._active = Gauge("flowtts_active_jobs", "Jobs in work or waiting.")
        self._full = Gauge(
            "flowtts_full", "Of what a voice may have at once, answers or audio, how much it has; the fullest one."
        )
        self._counters = {
            "pieces": Counter("flowtts_pieces", "Pieces of speech that went through the model."),
            "batches": Counter("flowtts_batches", "Batches that they went in."),
            "busy_s": Counter("flowtts_busy_seconds", "The engine's time at work."),
        }
        self._told = dict.fromkeys(self._counters, 0.0)

    def report(self, queued_s: float, active: int, full: float, totals: dict[str, float]) -> None:
        """`totals` are of "pieces", "batches" and "busy_s", since the replica began."""
        self._queued.set(queued_s)
        self._active.set(active)
        self._full.set(full)
        for name, counter in self._counters.items():
            more = totals[name] - self._told[name]
            if more > 0:
                counter.inc(more)
            self._told[name] = totals[name]
