"""`flowtts serve`: the server on this machine, or on a cluster by its address, until Ctrl-C."""

from __future__ import annotations

import argparse
import csv
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from cluster.sockets import ray_logs
from deploy.environment import LOOPBACK, is_loopback, serve_environment
from deploy.settings import RequestLimits, read_aliases, served_voices
from deploy.wyoming import add_options, gateway, gateway_settings
from flowtts_core.errors import ConfigError

EPILOG = """\
examples:
  flowtts serve                                             the bundled voice, for this machine alone
  flowtts serve --voice natural --voice voices/mine         two voices; the first is the default
  flowtts serve --alias tts-1=heart --alias nova=heart      other names, for clients that insist on theirs
  flowtts serve --keys keys.jsonl --new-key alice           make a key; it is shown once
  flowtts serve --voice voices/f5 --allow-cloning           clients may bring recordings, whose voices are imitated
  flowtts serve --host 0.0.0.0 --keys keys.jsonl            for others, who need a key
  flowtts serve --replicas 0-4                              as many replicas as the queue needs, none when nobody asks
  flowtts serve --wyoming 10200                             for Home Assistant on this machine too"""


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
        "--alias",
        metavar="NAME=VOICE",
        action="append",
        default=[],
        help="another name for a voice, or VOICE@SPEAKER, which may be asked for as a voice or a model; may be given again",
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
    parser.add_argument(
        "--queue-s", type=float, default=0.0, metavar="SECONDS", help="wait that long for a place before 503 (0)"
    )
    parser.add_argument("--max-chars", type=int, default=None, metavar="N", help="of one text (8192)")
    parser.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name besides localhost by which a server without keys may be addressed, as a proxy on this machine does",
    )
    parser.add_argument("--cache-mb", type=int, default=64, help="memory for finished answers (64)")
    parser.add_argument("--no-cache", action="store_true", help="make every answer anew")
    parser.add_argument(
        "--cors", metavar="ORIGIN", action="append", default=[], help="a web page's origin that may ask; * for all"
    )
    parser.add_argument(
        "--allow-cloning",
        action="store_true",
        help="all who may ask may have recordings imitated, by a voice that does; without it only keys made with --may-clone",
    )
    parser.add_argument(
        "--references",
        metavar="PLACE",
        help="where recordings that clients upload are kept: a folder, or s3:// (default: a folder of this user's cache)",
    )
    parser.add_argument("--may-clone", action="store_true", help="of --new-key: it may have recordings imitated")
    parser.add_argument("--no-watermark", action="store_true", help="do not mark answers as synthetic")
    parser.add_argument("--watermark-number", type=int, default=0, metavar="N", help="what the mark says (0)")
    parser.add_argument(
        "--watermark-key",
        metavar="FILE",
        type=Path,
        help="secret bytes, without which the mark can be neither found nor made (FLOWTTS_WATERMARK_KEY, or none)",
    )
    parser.add_argument("--allow-unmarked", action="store_true", help="requests may ask for sound without the mark")
    parser.add_argument("--log-texts", action="store_true", help="write the texts into the log")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.new_key is not None:
        return _make_key(args)
    options, wyoming = arguments(args), gateway_settings(args)
    with serving(options, args.host, args.port, args.address) as url, gateway(wyoming, url) as address:
        print(f"serving at {url}  (Ctrl-C ends it)\n\n{_example(url, args.keys is not None)}", flush=True)
        if address is not None:
            print(f"Wyoming protocol at tcp://{address}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        print("\nending: answers under way are finished first (Ctrl-C again cuts them)", file=sys.stderr, flush=True)
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
    for name, low in (("threads", 1), ("max_active", 1), ("cache_mb", 0), ("queue_s", 0), ("max_chars", 1)):
        value = getattr(args, name)
        if value is not None and not low <= value < float("inf"):
            raise ConfigError(f"--{name.replace('_', '-')} {value}: use at least {low}")
    if args.allowed_host and args.keys is not None:
        raise ConfigError("--allowed-host: a server with keys may be addressed by any name", "leave it out")
    _require_mark(args)
    for name in args.allowed_host:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9a-fA-F:]+", name):
            raise ConfigError(
                f"--allowed-host {name}: not a host's name", "give it without https:// and without a port"
            )
    return {
        "voices": [str(voice) for voice in args.voice],
        "aliases": args.alias,
        "lexicon": None if args.lexicon is None else str(args.lexicon.resolve()),
        "keys": None if args.keys is None else str(args.keys.resolve()),
        "without_keys": args.keys is None,
        "local_only": args.keys is None,
        "allowed_hosts": args.allowed_host,
        "limits": _limits(args),
        "cache_mb": 0 if args.no_cache else args.cache_mb,
        "origins": args.cors,
        "log_texts": args.log_texts,
        "min_replicas": int(match[1]),
        "max_replicas": int(match[2] or match[1]),
        "threads": args.threads,
        "max_active": args.max_active,
        "allow_cloning": args.allow_cloning,
        "references": None if args.references is None else _absolute(args.references),
        "watermark": not args.no_watermark,
        "watermark_number": args.watermark_number,
        "watermark_key": None if args.watermark_key is None else str(args.watermark_key.resolve()),
        "allow_unmarked": args.allow_unmarked,
    }


def _require_mark(args: argparse.Namespace) -> None:
    """Refuse a watermark that cannot be, before a minute is spent on starting Ray."""
    from flowtts_core.watermark.marking import Marking, read_key

    if not args.no_watermark:
        Marking(args.watermark_number, read_key(args.watermark_key, "--watermark-key"))
    elif args.watermark_number or args.watermark_key is not None:
        raise ConfigError("--no-watermark leaves out what the other options about it ask for", "give one of them")


@contextmanager
def serving(options: dict[str, Any], host: str, port: int, address: str | None = None) -> Iterator[str]:
    """The application, running; gives its URL.

    Raises:
        ConfigError: for aliases of what is not served, when the port is taken, the cluster cannot be reached or the application
            does not start.
        VoiceError: for a voice that does not exist.
    """
    read_aliases(options.get("aliases", []), served_voices(options.get("voices", [])))
    from cluster.session import root_cause, session

    own = address is None
    with serve_environment(own, host, port) as ways, session(address, options["max_replicas"], data=False):
        from ray import serve
        from ray.exceptions import RayError
        from ray.serve.config import HTTPOptions

        from deploy.app import NAME, ServeArgs, build

        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # its import sets another
        try:
            serve.start(http_options=HTTPOptions(host=ways.host, port=ways.port))
            serve.run(build(ServeArgs(**options, instance=ways.instance)), name=NAME, route_prefix="/")
        except (RuntimeError, RayError) as error:  # RayError: its proxy died, as on a machine with far too much to do
            serve.shutdown()
            raise ConfigError(
                f"the server did not start: {root_cause(error)}", f"the log has more: {ray_logs() / 'serve'}"
            ) from error
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{ways.port}"
            _finish(NAME, ways.statistics)
        finally:
            serve.shutdown()


def _finish(application: str, statistics: int | None) -> None:
    """Let the front refuse what is new, and wait for the answers under way, unless Ctrl-C comes again.

    They are complete where the front has made them and HAProxy has sent them.
    """
    from ray import serve

    front = serve.get_deployment_handle("Front", application)
    until, failed = time.monotonic() + RequestLimits().answer_s, 0
    with suppress(KeyboardInterrupt):
        while time.monotonic() < until and failed < 10:
            try:
                busy, quiet = front.drain.remote().result(timeout_s=5)
            except Exception:  # of Ray, for a front that has just died: another comes, or there is nothing to wait for
                busy, quiet, failed = 1, 0, failed + 1
            if not busy and (statistics is None or _connected(statistics) <= quiet):
                return
            time.sleep(0.2)


def _connected(statistics: int) -> int:
    """Requests that HAProxy has not answered in full, by its own page; none where it is dead, and their connections with it."""
    try:
        with urlopen(f"http://{LOOPBACK}:{statistics}/stats;csv", timeout=5) as page:
            table = page.read().decode().removeprefix("# ")
    except OSError:
        return 0
    rows = csv.DictReader(table.splitlines())
    return sum(int(row["scur"]) for row in rows if row["svname"] == "BACKEND" and row["pxname"].startswith("http-"))


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _limits(args: argparse.Namespace) -> dict[str, float]:
    limits: dict[str, float] = {"queue_s": args.queue_s}
    if args.max_chars is not None:
        usual = RequestLimits()
        longer = max(1.0, args.max_chars / usual.chars)
        limits |= {"chars": args.max_chars, "audio_s": longer * usual.audio_s}
    return limits


def _make_key(args: argparse.Namespace) -> int:
    from deploy.keys import add_key, new_key

    if args.keys is None:
        raise ConfigError("--new-key needs a file to write to", "flowtts serve --keys keys.jsonl --new-key NAME")
    if args.requests_per_minute < 1 or args.concurrent < 1:
        raise ConfigError("--requests-per-minute and --concurrent are at least 1")
    limits = {"requests_per_minute": args.requests_per_minute, "concurrent": args.concurrent}
    secret, key = new_key(args.new_key, cloning=args.may_clone, **limits)
    add_key(args.keys, key)
    print(secret)
    print(f"that is the key of {key.name}: it is shown this once; {args.keys} has its hash alone", file=sys.stderr)
    return 0


def _example(url: str, keys: bool) -> str:
    key = ' -H "Authorization: Bearer $KEY"' if keys else ""
    body = '{"model": "flowtts", "voice": "alloy", "input": "Good evening."}'
    return f"  curl {url}/v1/audio/speech{key} -H 'Content-Type: application/json' \\\n    -d '{body}' -o evening.mp3"
