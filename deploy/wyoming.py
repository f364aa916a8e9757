"""The Wyoming protocol, which Home Assistant speaks: a gateway in `flowtts serve` to the server's own HTTP interface.

The gateway asks the server as any client does, so limits, keys, the log and the metrics are those of every request, and a
listener that goes away stops the work. The protocol has no keys. So the gateway lets in this machine and the networks that it
was given, and where the server asks for keys it needs one of its own, under whose limits all its clients stand.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deploy.environment import is_loopback
from deploy.wyoming_talk import MAX_EVENT, Conversation, Refused
from flowtts_core.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = logging.getLogger("flowtts.wyoming")
MAX_CLIENTS = 32
DRAIN_S = 30.0  # for answers under way when the server ends


@dataclass(frozen=True)
class GatewaySettings:
    """Where the gateway listens, whom it lets in beside this machine, and the key that it asks the server with."""

    host: str
    port: int
    networks: tuple[Network, ...] = ()
    key: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Wyoming protocol (Home Assistant)")
    group.add_argument(
        "--wyoming", metavar="[HOST:]PORT", help="answer the Wyoming protocol too, by default on loopback"
    )
    group.add_argument(
        "--wyoming-allow",
        metavar="NETWORK",
        action="append",
        default=[],
        help="who may come from elsewhere (192.168.1.0/24, or one address): the protocol has no keys; may be given again",
    )
    group.add_argument(
        "--wyoming-key",
        metavar="FILE",
        type=Path,
        help="with --keys: a file with the key that all Wyoming clients share, as --new-key showed it",
    )


def gateway_settings(args: argparse.Namespace) -> GatewaySettings | None:
    """What the options say; None without --wyoming.

    Raises:
        ConfigError: for an address or network that is none, and where everybody would be let in.
    """
    if args.wyoming is None:
        if args.wyoming_allow or args.wyoming_key is not None:
            raise ConfigError("--wyoming-allow and --wyoming-key need --wyoming", "for example --wyoming 10200")
        return None
    if find_spec("wyoming") is None:
        raise ConfigError("--wyoming needs the package wyoming", "pip install 'flowtts[wyoming]'")
    host, _, port = args.wyoming.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--wyoming {args.wyoming}: use PORT or HOST:PORT", "for example --wyoming 10200")
    networks = tuple(_network(given) for given in args.wyoming_allow)
    local = is_loopback(host)
    if not local and not _is_address(host):
        raise ConfigError(f"--wyoming {args.wyoming}: the host must be an address", "0.0.0.0 is all of them")
    if not local and not networks:
        remedy = "say who may come: --wyoming-allow NETWORK, for example 192.168.1.0/24 or Home Assistant's address"
        raise ConfigError(f"--wyoming {args.wyoming}: others could reach it, and the protocol has no keys", remedy)
    return GatewaySettings(host, int(port), networks, _key(args))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _network(given: str) -> Network:
    try:
        network = ipaddress.ip_network(given)
    except ValueError as error:
        raise ConfigError(f"--wyoming-allow {given}: {error}", "for example 192.168.1.0/24") from None
    if network.prefixlen == 0:
        raise ConfigError(f"--wyoming-allow {given}: that is everybody", "name your own network")
    return network


def _key(args: argparse.Namespace) -> str | None:
    """The gateway's own key, which must stand in the keys file; None where the server asks for none."""
    if args.keys is None:
        if args.wyoming_key is not None:
            raise ConfigError("--wyoming-key is for a server with --keys", "leave it out")
        return None
    if args.wyoming_key is None:
        remedy = (
            "make one: flowtts serve --keys FILE --new-key wyoming > wyoming.key, then give --wyoming-key wyoming.key"
        )
        raise ConfigError("--wyoming lets clients in without a key, and this server asks for keys", remedy)
    from deploy.errors import ApiError
    from deploy.keys import Keyring

    try:
        key = args.wyoming_key.read_text(encoding="utf-8").strip()
        Keyring(args.keys).find(f"Bearer {key}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--wyoming-key {args.wyoming_key}: cannot be read ({error})") from error
    except ApiError as error:
        remedy = f"the file has one line, the key as --new-key showed it; its hash stands in {args.keys}"
        raise ConfigError(f"--wyoming-key {args.wyoming_key}: {error.message}", remedy) from None
    return key


@contextmanager
def gateway(settings: GatewaySettings | None, url: str) -> Iterator[str | None]:
    """Answer the protocol while the server at `url` runs; gives the address, HOST:PORT, or None without settings.

    Raises:
        ConfigError: when it cannot listen there.
    """
    if settings is None:
        yield None
        return
    started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    serve = _Gateway(settings, _reachable(url)).serve
    thread = threading.Thread(target=lambda: asyncio.run(serve(started)), name="wyoming", daemon=True)
    thread.start()
    address, loop, ending = started.result()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(DRAIN_S + 5)


def _reachable(url: str) -> str:
    """The server's URL for this machine: one that listens everywhere is reached by loopback."""
    parts = urlsplit(url)
    own = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")
    return url if own is None else f"http://{own}:{parts.port}"


class _Gateway:
    """Listens, and holds one conversation a connection."""

    def __init__(self, settings: GatewaySettings, url: str) -> None:
        self.settings, self.url = settings, url
        self.conversations: dict[asyncio.Task[None], Conversation] = {}

    async def serve(self, started: Future[Any]) -> None:
        from aiohttp import ClientSession, ClientTimeout

        key = self.settings.key
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        timeout = ClientTimeout(total=None, sock_connect=10)  # the server ends answers that take too long
        async with ClientSession(self.url, headers=headers, timeout=timeout) as server:

            async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._admit(Conversation(server, reader, writer))

            try:
                listening = await asyncio.start_server(admit, self.settings.host, self.settings.port, limit=MAX_EVENT)
            except OSError as error:
                remedy = "end what listens there, or choose another with --wyoming"
                where = f"{self.settings.host}:{self.settings.port}"
                started.set_exception(ConfigError(f"--wyoming: cannot listen at {where}: {error.strerror}", remedy))
                return
            host, port = listening.sockets[0].getsockname()[:2]
            ending = asyncio.Event()
            started.set_result(
                (f"[{host}]:{port}" if ":" in host else f"{host}:{port}", asyncio.get_running_loop(), ending)
            )
            await ending.wait()
            listening.close()
            await self._drain()

    async def _admit(self, conversation: Conversation) -> None:
        peer = conversation.writer.get_extra_info("peername")[0]
        task = asyncio.current_task()
        assert task is not None
        if not self._welcome(peer):
            log.warning("refused a Wyoming client at %s: it is in no network of --wyoming-allow", peer)
            conversation.writer.close()
            return
        self.conversations[task] = conversation
        try:
            if len(self.conversations) > MAX_CLIENTS:
                await conversation.refuse(Refused(f"{MAX_CLIENTS} clients are connected", "overloaded"))
            else:
                await conversation.run()
        finally:
            del self.conversations[task]

    def _welcome(self, peer: str) -> bool:
        address = ipaddress.ip_address(peer.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or any(address in network for network in self.settings.networks)

    async def _drain(self) -> None:
        """End: who waits for nothing is cut, answers under way may finish."""
        for conversation in list(self.conversations.values()):
            conversation.last = True
            if not conversation.busy:
                conversation.writer.close()
        if self.conversations:
            _, late = await asyncio.wait(self.conversations, timeout=DRAIN_S)
            for task in late:
                task.cancel()
