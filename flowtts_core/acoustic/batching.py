"""Which spans go through a flow together on a GPU: those of like lengths, since padding is computed too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_ALIKE = 0.7  # of the longest span of a batch that is padded


def alike(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield the places of spans that go together, the longest first."""
    batch: list[int] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        if batch and sizes[place] < _ALIKE * sizes[batch[0]]:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
