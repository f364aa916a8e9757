"""Finished answers kept by their request: the least recently used go when the bytes are too many."""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache


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
