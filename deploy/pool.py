"""The replicas that a front knows: found through a Serve handle, chosen by load, dropped when they are lost."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from typing import Any

from deploy.link import Address, LinkClient
from deploy.speech import Refusal, ReplicaLost, SoundPiece, SpeechJob

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.5  # while there is work: a handle's call gives one replica, by chance, so several are asked for
LOOKS = 2
IDLE_S = 5.0  # after the last job, nobody is looked for: with no replica left, that alone would start one
HOME_BONUS = 3  # answers that a replica may have more than the others and still get a voice that it has loaded

Locate = Callable[[], Awaitable[Address]]


class ReplicaPool:
    """A `ReplicaLink` over all replicas.

    Args:
        locate: gives the address of some replica; waits while none runs. What it raises is tried again.
        start_s: how long a job waits for the first replica, as after a scale to zero.
        everywhere: the voice that every replica has loaded; each other voice has a replica that is its home.
    """

    def __init__(self, locate: Locate, *, start_s: float, everywhere: str) -> None:
        self._locate, self._start_s, self._everywhere = locate, start_s, everywhere
        self._links: dict[Address, LinkClient] = {}
        self._looking: asyncio.Task[None] | None = None
        self._last_job = 0.0

    async def speak(self, job: SpeechJob) -> AsyncIterator[SoundPiece | Refusal]:
        """See `ReplicaLink`."""
        self._last_job = time.monotonic()
        link: LinkClient | None = self._chosen(job.voice) or await self._first()
        self._look()
        full: set[LinkClient] = set()
        while link is not None:
            asked, link = link, None
            sounds: Any = asked.speak(job)
            try:
                async with aclosing(sounds):
                    async for item in sounds:
                        if isinstance(item, Refusal) and item.kind == "draining":
                            raise ReplicaLost("the replica is about to stop")
                        if isinstance(item, Refusal) and item.kind == "overloaded":
                            full.add(asked)  # other fronts fill it too, and its home's voice
                            link = self._chosen(job.voice, full)
                        if link is None:
                            yield item
            except ReplicaLost:
                self._drop(asked)
                raise

    async def ready(self) -> bool:
        """See `ReplicaLink`; asks Serve anew, for a replica that was known may be gone."""
        self._known(await self._locate())
        return True

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        for link in list(self._links.values()):
            self._drop(link)

    @property
    def known(self) -> int:
        return len(self._links)

    def _chosen(self, voice: str, full: Collection[LinkClient] = ()) -> LinkClient | None:
        links = [link for link in self._links.values() if link not in full]
        if not links:
            return None
        home = None if voice == self._everywhere else max(links, key=lambda link: _weight(voice, link.address))
        return min(links, key=lambda link: link.running - (HOME_BONUS if link is home else 0))

    async def _first(self) -> LinkClient:
        try:
            async with asyncio.timeout(self._start_s):
                while True:
                    try:
                        return self._known(await self._locate())
                    except Exception as error:  # of Ray, for a replica that died meanwhile
                        log.info("no replica yet: %s", type(error).__name__)
                        await asyncio.sleep(0.1)
        except TimeoutError:
            raise ReplicaLost(f"no replica within {self._start_s:g} s") from None

    def _known(self, address: Address) -> LinkClient:
        return self._links.setdefault(address, LinkClient(address))

    def _drop(self, link: LinkClient) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]
        link.close()

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look_on())

    async def _look_on(self) -> None:
        """Find replicas that were started since, until there has been no job for a while."""
        while time.monotonic() - self._last_job < IDLE_S:
            await asyncio.sleep(LOOK_EVERY_S)
            with suppress(Exception):
                async with asyncio.timeout(self._start_s):
                    for address in await asyncio.gather(*(self._locate() for _ in range(LOOKS))):
                        self._known(address)


def _weight(voice: str, address: Address) -> bytes:
    """Rendezvous hashing: a replica that comes or goes moves only the voices that are its own."""
    return hashlib.blake2b(f"{voice} {address.host} {address.port}".encode(), digest_size=8).digest()
