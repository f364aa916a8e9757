"""Distributed training: sums over processes, agreement between them, and the case of one process alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process among `size` that train together; as it stands, the only one.

    Attributes:
        notice: set when this process is told that it must go; read after each step.
    """

    rank: int = 0
    size: int = 1
    notice: threading.Event = field(default_factory=threading.Event)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; its gradient goes to this one's part."""
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the processes."""

    def first(self, number: int, device: torch.device | str = "cpu") -> int:
        """Return rank 0's number on every process; none goes on before rank 0 is here too."""
        return number

    def told_to_go(self, device: torch.device | str = "cpu") -> bool:
        """Return whether any process has had notice."""
        return self.notice.is_set()


@dataclass(frozen=True)
class TorchRanks(Ranks):
    """The processes of the default torch.distributed group."""

    def total(self, values: Tensor) -> Tensor:
        everywhere = values.detach().clone()
        dist.all_reduce(everywhere)
        return values + (everywhere - values.detach())

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum all gradients in one flattened all-reduce.

        A parameter that no process has a gradient of keeps none, so that the optimiser leaves it alone, as in a single one.
        A gradient that is not finite on one process is so on all, so that all leave the step out together.
        """
        if not parameters:
            return
        device = parameters[0].device
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
        pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
        flat = torch.cat([*pieces, present])
        dist.all_reduce(flat)
        found = flat[len(flat) - len(parameters) :].tolist()
        offset = 0
        for parameter, count in zip(parameters, found, strict=True):
            summed = flat[offset : offset + parameter.numel()].view_as(parameter)
            offset += parameter.numel()
            if count:
                parameter.grad = summed.to(parameter.dtype)

    def first(self, number: int, device: torch.device | str = "cpu") -> int:
        message = torch.tensor(number, dtype=torch.int64, device=device)
        dist.broadcast(message, 0)
        return int(message)

    def told_to_go(self, device: torch.device | str = "cpu") -> bool:
        message = torch.tensor(float(self.notice.is_set()), device=device)
        dist.all_reduce(message)
        return bool(message > 0)


ALONE = Ranks()
