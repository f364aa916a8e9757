"""Ranks as threads of one process, for tests of what several processes do together: no sockets, no spawning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from flowtts_core.training.distributed import Ranks

Result = TypeVar("Result")


class Meeting:
    """Where threads exchange what each brings; one that fails lets the others go.

    Between exchanges one thread works at a time, whose turn it is: torch's global generator is the same for all of them.
    """

    def __init__(self, size: int) -> None:
        self.size, self._barrier, self._brought = size, threading.Barrier(size), dict[int, Any]()
        self.turn = threading.Lock()

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._brought[rank] = value
        self.turn.release()
        try:
            self._barrier.wait(60)
            values = [self._brought[other] for other in range(self.size)]
            self._barrier.wait(60)
        finally:
            self.turn.acquire()
        return values

    def abort(self) -> None:
        self._barrier.abort()


class ThreadRanks(Ranks):
    """As `TorchRanks`, among the threads of a meeting."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, meeting.size)
        object.__setattr__(self, "meeting", meeting)
        self.meeting: Meeting

    def total(self, values: Tensor) -> Tensor:
        others = sum(self.meeting.exchange(self.rank, values.detach().clone()))
        return values + (others - values.detach())

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        mine = [None if p.grad is None else p.grad.clone() for p in parameters]
        for parameter, parts in zip(parameters, zip(*self.meeting.exchange(self.rank, mine), strict=True), strict=True):
            found = [part for part in parts if part is not None]
            parameter.grad = torch.stack(found).sum(0) if found else None

    def first(self, number: int, device: torch.device | str = "cpu") -> int:
        return self.meeting.exchange(self.rank, number)[0]

    def told_to_go(self, device: torch.device | str = "cpu") -> bool:
        return any(self.meeting.exchange(self.rank, self.notice.is_set()))


def together(size: int, work: Callable[[Ranks], Result]) -> list[Result]:
    """What each of so many ranks returns; raises what the first of them raised."""
    if size == 1:
        return [work(Ranks())]
    meeting = Meeting(size)

    def rank(number: int) -> Result:
        try:
            with meeting.turn:
                return work(ThreadRanks(number, meeting))
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(size) as threads:
        futures = [threads.submit(rank, number) for number in range(size)]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        return [future.result() for future in futures]
