"""Keeps finished answers by their request, and for ten minutes by an id; the least recently used go when space runs out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache, TTLCache

KEEP_S, MAX_IDS = 600.0, 10_000


@dataclass(frozen=True)
class Answer:
    """A whole answer as it was sent."""

    body: bytes
    media_type: str


class AnswerCache(LRUCache[str, Answer]):
    """At most `max_bytes` of answers; 0 keeps none. Not for several threads."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda answer: len(answer.body))

    def room_for(self, size: int) -> bool:
        """Whether an answer of so many bytes is kept: one may take a quarter, so that no single book empties the cache."""
        return size <= self.maxsize // 4

    def put(self, key: str, answer: Answer) -> None:
        if self.room_for(len(answer.body)):
            self[key] = answer


class AnswerIds:
    """What an id means: the request of an answer whose bytes the cache has, and who may ask for it.

    Not for several threads.
    """

    def __init__(self, cache: AnswerCache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._requests: TTLCache[str, tuple[str, str]] = TTLCache(MAX_IDS, KEEP_S, clock)

    def add(self, answer_id: str, key: str, owner: str) -> None:
        """Let an id mean the answer of this request's key, for `KEEP_S`."""
        self._requests[answer_id] = (key, owner)

    def find(self, answer_id: str, owner: str) -> Answer | None:
        """Return the answer; None where it is unknown, too old, gone from the cache or somebody else's."""
        key, known = self._requests.get(answer_id, ("", ""))
        return self._cache.get(key) if known == owner else None
