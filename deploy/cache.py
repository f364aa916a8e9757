"""Finished answers kept by their request: the least recently used go when the bytes are too many."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A whole answer as it was sent."""

    body: bytes
    media_type: str


class AnswerCache:
    """At most `max_bytes` of answers; 0 keeps none. Not for several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def get(self, key: str) -> Answer | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def room_for(self, size: int) -> bool:
        """Whether an answer of so many bytes is kept: one may take a quarter, so that no single book empties the cache."""
        return size <= self.max_bytes // 4

    def put(self, key: str, answer: Answer) -> None:
        if not self.room_for(len(answer.body)):
            return
        old = self._answers.pop(key, None)
        self.bytes += len(answer.body) - (len(old.body) if old else 0)
        self._answers[key] = answer
        while self.bytes > self.max_bytes:
            _, dropped = self._answers.popitem(last=False)
            self.bytes -= len(dropped.body)

    def __len__(self) -> int:
        return len(self._answers)
