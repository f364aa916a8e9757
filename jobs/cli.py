"""The command line: one verb per file of this folder, of which only the chosen one is imported."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import Any

from cluster.storage import use_object_store
from flowtts_core import __version__
from flowtts_core.errors import ConfigError, FlowTTSError

COMMANDS = {  # name -> (file of this folder, or another package's module, what it does)
    "synthesize": ("synthesize", "read a book, a text or a table of sentences aloud"),
    "chapters": ("chapters", "list a book's chapters as they will be read"),
    "status": ("status", "how far a synthesis job is, running or dead"),
    "verify": ("verify", "prove that a finished job is whole, or mend it"),
    "say": ("say", "say one text at once"),
    "edit": ("edit", "say words of a recording anew, in its own voice"),
    "voices": ("voices", "list the voices, or save a clone"),
    "serve": ("deploy.serve", "answer over HTTP as OpenAI's speech endpoint does"),
    "evaluate": ("evaluate", "score what was made"),
    "corpus": ("make_corpus", "let a voice read texts, to train another"),
    "prepare": ("prepare", "make a corpus ready for training"),
    "align": ("align", "find when each word and phone of recordings is spoken"),
    "train": ("train", "train a voice"),
    "distill": ("distill", "teach a voice or a vocoder to take fewer steps"),
    "vocode": ("vocode", "turn mels into sound by a vocoder, or recordings into copies"),
    "codec": ("codec", "turn sound into codes, and back"),
    "convert": ("convert", "a recording in another's voice, or spoken as another is"),
    "watermark": ("watermark", "mark sound as synthetic, and find marks"),
    "credentials": ("credentials", "sign what recordings are, and read what they say"),
    "import": ("import_voice", "make a voice from a published checkpoint"),
    "pull": ("pull", "copy a voice from a model hub"),
    "push": ("push", "publish a voice on a model hub"),
    "export": ("export_voice", "write a flow voice or a vocoder for ONNX Runtime"),
    "benchmark": ("benchmark", "measure a voice's quality and speed"),
    "cluster": ("cluster", "a trial cluster on this machine; the state of any cluster"),
    "doctor": ("doctor", "what this machine has, and what is missing"),
}
S3_COMMANDS = (
    "synthesize",
    "chapters",
    "status",
    "verify",
    "evaluate",
    "corpus",
    "prepare",
    "align",
    "train",
    "distill",
    "codec",
    "convert",
)  # those that take s3:// places
INTERRUPTED, TERMINATED = 130, 143  # 128 + SIGINT and SIGTERM, as shells give it

_STORE_REMEDY = "check --s3-endpoint and --s3-profile, or AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

EPILOG = """\
examples:
  flowtts say "Hello there." -o hello.wav         one sentence, at once
  flowtts synthesize book.epub -o audiobook/      a whole book: chapters, subtitles, one tagged file
  flowtts chapters book.epub                      its chapters, without speaking
  flowtts serve                                   an endpoint as OpenAI's, for this machine
  flowtts prepare ljspeech/ -o data/              a corpus made ready for training
  flowtts train data/ -o voices/mine              a voice of your own
  flowtts doctor                                  what this machine has, and what is missing

exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some inputs were set aside; 4 a required score was missed;
5 a job is not whole, or was stopped; 130 interrupted; 143 terminated.

flowtts COMMAND --help says more about each."""


class _Parser(argparse.ArgumentParser):
    """Refuses what it does not know itself, with its own usage, where argparse leaves that to the uppermost parser."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._meant(rest)}")
        return known, rest

    def _meant(self, rest: Sequence[str]) -> str:
        names = sorted(set(re.findall(r"--[a-z][a-z0-9-]+", self.format_help())))
        likely = [get_close_matches(word.partition("=")[0], names, 1) for word in rest if word.startswith("--")]
        found = [close[0] for close in likely if close]
        return f" (did you mean {', '.join(found)}?)" if found else ""


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser with all names, and with the options of the chosen command (others would only slow the start)."""
    parser = _Parser(
        prog="flowtts",
        description="Read books and texts aloud, and train the voices that do it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"flowtts {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (file, summary) in COMMANDS.items():
        if name == chosen:
            import_module(file if "." in file else f"jobs.{file}").add_parser(subparsers)
            if name in S3_COMMANDS:
                _add_object_store(subparsers.choices[name])
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _add_object_store(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where s3:// leads (default: as the AWS_ variables and ~/.aws say)")
    group.add_argument("--s3-endpoint", metavar="URL", help="of a store other than Amazon's, as http://minio:9000")
    group.add_argument("--s3-profile", metavar="NAME", help="whose keys: a profile of ~/.aws/credentials")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated)."""
    words = sys.argv[1:] if argv is None else list(argv)
    debug = words[:1] == ["--debug"]
    with _terminable() as terminated:
        try:
            args = build_parser(next((word for word in words if not word.startswith("-")), None)).parse_args(words)
            if str(getattr(args, "address", None)).startswith(("http://", "https://")):
                return _submit(words, args)
            if getattr(args, "s3_endpoint", None) or getattr(args, "s3_profile", None):
                use_object_store(args.s3_endpoint, args.s3_profile)
            return int(args.run(args))
        except (KeyboardInterrupt, Exception) as error:
            if debug:
                raise
            message, code = _verdict(error, terminated.is_set())
            _complain(message)
            return code


def _submit(words: Sequence[str], args: argparse.Namespace) -> int:
    """Send the whole command to a cluster, which runs it there."""
    from cluster.submission import refuse_local_output, submit
    from flowtts_core.watermark.marking import KEY_VARIABLE

    refuse_local_output(args)
    option = next((name for name in ("watermark_key", "key") if hasattr(args, name)), None)
    # an evaluation uses the key only where somebody is asked for marks, by the judge's name or a metric's
    used = "judges" not in args or any(name in (args.judges or "") for name in ("watermark", "mark_"))
    if option is not None and used and getattr(args, option) is None and os.environ.get(KEY_VARIABLE):
        raise ConfigError(
            f"{KEY_VARIABLE} is set here, and the command runs on the cluster, which does not have that key",
            f"give --{option.replace('_', '-')} FILE, a file that is there on the cluster, or unset the variable",
        )
    return submit(words, args.address)


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Let SIGTERM end the command as Ctrl-C does, so that what is held is let go; the event tells the two apart."""
    terminated = threading.Event()

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield terminated
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _verdict(error: BaseException, terminated: bool) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    if terminated:
        return "terminated", TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, FlowTTSError):
        return f"error: {_first_cause(error)}", error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}\n  remedy: check that it is there and may be used", 1
    if type(error).__module__.startswith("botocore"):  # no keys, no such endpoint, and the like
        return f"error: the object store: {error}\n  remedy: {_STORE_REMEDY}", 1
    remedy = "run it again as `flowtts --debug ...` and report what it prints"
    return f"error: unexpected {type(error).__name__}: {error}\n  remedy: {remedy}", 1


def _first_cause(error: FlowTTSError) -> FlowTTSError:
    """The error itself: Ray hands on a worker's error in one of the same class whose text is a whole traceback."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, FlowTTSError) else error


def _complain(message: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
