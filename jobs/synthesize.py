"""`flowtts synthesize`: a book to an audiobook, or rows of text to a corpus of audio files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster.resources import PROFILES, profile_named
from jobs.request_options import (
    add_cast_options,
    add_consent_option,
    add_lexicon_option,
    add_request_options,
    add_signing_options,
    add_watermark_options,
    cast_of,
    marking_of,
    read_lexicon,
    request_settings,
    signing_of,
    watermark_asked,
)

if TYPE_CHECKING:
    from cluster.plan import StoredPlan
    from flowtts_core.engines.base import UtteranceSynthesizer
    from flowtts_core.signing import Signing
    from flowtts_core.watermark.marking import Marking
    from jobs.synthesis.engine import Engine, Voices
    from jobs.synthesis.input import ReadingOptions
    from jobs.synthesis.job import Options, Repair
    from jobs.synthesis.languages import LanguageCheck
    from jobs.synthesis.plan import Plan
    from jobs.synthesis.settings import GateConfig, Speaking
    from jobs.synthesis.summary import Summary

_NOTES_SHOWN = 12
DESCRIPTION = """\
Read a book, a library or a corpus aloud.

A book (EPUB, Project Gutenberg text, plain text, HTML, Markdown, DOCX, ODT, RTF, FB2, PDF with text, MOBI and AZW3 by
Calibre) becomes one tagged file with chapter marks and cover, a file for each chapter, subtitles (SRT, VTT), word times
(words.json) and a report (report.html). Rows (JSONL, CSV, TSV, Parquet, cues of SRT and VTT, or lines of text with --lines)
become a folder of audio files with metadata.csv, ready for `flowtts prepare`; a column voice, and columns named as the options
below (seed, speed, steps, clone and ref_text, ...), say how a row is spoken: a clone is a path beside the table, or in Parquet
the bytes of an audio file. Several inputs make one job: each book gets its folder under books/.
`flowtts chapters BOOK` lists a book's chapters, and what of it is not read.
What cannot be read, or is in another language than the voice reads, is refused (--language insists on a language).
An input is a file, a folder, a pattern, an s3:// object or prefix, or a list of inputs: a table with a column `input`.

A job that was stopped, by Ctrl-C, a crash or a full disk, goes on where it ended when the same command runs again, and
gives the same files. What cannot be spoken is set aside in quarantine.jsonl with the reason; the rest is not harmed. When texts
or settings have changed, --update speaks what changed and keeps the rest. `flowtts status DIR` shows how far a job is, `flowtts
verify DIR` proves that a finished one is whole."""

EPILOG = """\
examples:
  flowtts synthesize book.epub -o audiobook/                  chapters, book.m4b, subtitles, report
  flowtts synthesize book.epub -o trial/ --chapters 1-2       only the first two chapters
  flowtts synthesize book.epub -o listen/ --read-along            also TITLE.epub, which shows each sentence as it is spoken
  flowtts synthesize book.txt -o talk/ --format mp3 --bitrate 96 --title "My Talk" --author Me --cover me.jpg
  flowtts synthesize texts.jsonl -o corpus/                   rows {"id": ..., "text": ...} to corpus/audio/ID.flac
  flowtts synthesize notes.txt --lines -o lines/              each line is a row
  flowtts synthesize texts.jsonl -o corpus/ --verify 'wer<0.3'    each row heard by a recogniser, and spoken again if need be
  flowtts synthesize 'library/*.epub' -o audiobooks/              many books, one job: audiobooks/books/NAME/
  flowtts synthesize list.jsonl -o out/                           rows {"input": "a.epub", "voice": "amy", "speed": 1.1}
  flowtts synthesize film.srt -o dub/                             cues as rows; their times stand in dub/manifest.parquet
  flowtts synthesize quotes.csv -o corpus/ --text-column quote    a table with other column names
  flowtts synthesize rows.csv -o out/ --voice voices/f5           columns clone (a recording) and ref_text (what is said in it)
  flowtts synthesize s3://texts/ -o s3://speech/a --rows parquet --address http://head:8265 --min 4 --max 64

exit codes: 0 all is spoken; 3 done, but some rows were set aside or not verified; 1 failed; 2 wrong usage; 130 interrupted;
143 terminated."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "synthesize",
        help="read a book or a corpus aloud",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="books, tables, lists of inputs; folders, patterns, s3://"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where everything goes; local or s3://")
    parser.add_argument(
        "--voice", help="a bundled voice's name, a voice folder or hf://owner/name (default: the bundled one)"
    )
    _add_reading(parser.add_argument_group("what is read"))
    add_cast_options(parser.add_argument_group("who speaks"))
    add_speaking(parser)
    add_verifying(parser)
    output = parser.add_argument_group("what comes out")
    _add_output(output)
    add_going_on(output)
    add_running(parser)
    parser.set_defaults(run=run)


def _add_reading(group: Any) -> None:
    group.add_argument("--chapters", default="", metavar="1-3,5", help="these chapters of the book (default: all)")
    group.add_argument("--max-sentences", type=int, metavar="N", help="only the first N sentences or rows")
    add_columns(group)
    group.add_argument("--include-matter", action="store_true", help="front and back matter too (imprint, index, ...)")
    group.add_argument(
        "--notes",
        choices=("skip", "read", "end"),
        default="skip",
        help="footnotes and endnotes: read them at their places, or at the end of their chapter (default: skip)",
    )
    group.add_argument(
        "--pause",
        default="",
        metavar="WHERE=S,...",
        help="seconds of silence in books: sentence=0.35,paragraph=0.7,heading=1.2,scene_break=1.5 (these are the defaults)",
    )
    group.add_argument(
        "--lines", action="store_true", help="each line of a text is a row of its own, not part of a book"
    )


def add_columns(group: Any) -> None:
    group.add_argument(
        "--text-column",
        default="",
        metavar="NAME",
        help="of a table: the column of the texts (default: text, or one alike)",
    )
    group.add_argument(
        "--id-column", default="", metavar="NAME", help="of a table: the column of the ids (default: id, or one alike)"
    )


def add_speaking(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is spoken")
    add_request_options(group)
    add_consent_option(group)
    add_lexicon_option(group)
    add_watermark_options(group)
    add_signing_options(group)


def add_verifying(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is verified (needs pip install 'flowtts[eval]')")
    group.add_argument(
        "--verify",
        action="append",
        default=[],
        metavar="'M<X'",
        help="judge each utterance, for instance 'wer<0.3' or 'mos_overall>3', and speak it again, with other seeds and more "
        "steps, until it holds; may be given again. The best take is kept; the rest goes to quarantine.jsonl",
    )
    group.add_argument("--takes", type=int, default=3, metavar="N", help="takes of an utterance at most (default: 3)")
    group.add_argument(
        "--asr",
        metavar="KIND[:MODEL]",
        help="what transcribes, see flowtts evaluate --help (default: pocketsphinx); it also hears what is said in the recordings"
        " of rows (column clone) that have no text (column ref_text), which without --asr are set aside",
    )
    group.add_argument("--verify-speaker", metavar="FILE", help="a clip of the voice that `secs` is measured against")


def _add_output(group: Any) -> None:
    group.add_argument("--format", default="m4b", help="of the book's one file: m4b, mp3 or opus (default: m4b)")
    group.add_argument("--chapter-format", default="mp3", help="mp3, m4a, flac, opus, wav or none (default: mp3)")
    group.add_argument(
        "--bitrate", type=_kbps, metavar="KBPS", help="of the lossy formats: 96 or 96k (default: 64, of opus 32)"
    )
    group.add_argument(
        "--read-along",
        action="store_true",
        help="TITLE.epub too, an EPUB 3 that shows each sentence as it is spoken (text and sound in one file)",
    )
    group.add_argument("--title", help="of the book, in its tags and files' names (default: its own)")
    group.add_argument("--author", help="of the book (default: its own)")
    group.add_argument("--cover", metavar="FILE", help="a JPEG or PNG for the book and its chapters (default: its own)")
    group.add_argument(
        "--rows",
        default="files",
        help="of a corpus: files, parquet (in the shards) or webdataset (tars); default: files",
    )


def _kbps(text: str) -> int:
    """Read "96", "96k" and "96kbps" as 96."""
    digits = text.lower().removesuffix("bps").removesuffix("k")
    if not digits.isascii() or not digits.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of kbit/s, such as 96")
    return int(digits)


def add_going_on(group: Any) -> None:
    group.add_argument(
        "--overwrite", action="store_true", help="delete what another job of ours left in the output folder"
    )
    group.add_argument(
        "--update", action="store_true", help="the output holds this job with other inputs or settings: do what changed"
    )
    group.add_argument("--retry-failed", action="store_true", help="speak again what an earlier run set aside")


def add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--workers", type=int, metavar="N", help="processes that speak, a core each (default: every core)"
    )
    group.add_argument("--min", type=int, metavar="N", help="on a cluster: processes that speak at least, and")
    group.add_argument("--max", type=int, metavar="N", help="at most; Ray adds and takes away as work and machines do")
    kinds = "; ".join(f"{name}: {profile.note}" for name, profile in PROFILES.items())
    group.add_argument(
        "--profile",
        default="laptop",
        metavar="NAME",
        help=f"a kind of machine, sets the next three; {kinds} (default: laptop)",
    )
    group.add_argument("--device", choices=("cpu", "cuda"), help="where the voice runs (default: by --profile)")
    group.add_argument(
        "--gpus-per-worker", type=float, metavar="X", help="0.5: two share one (default: by --profile, or 1)"
    )
    group.add_argument(
        "--worker-memory", type=float, metavar="GIB", help="kept for a worker, which ends if it takes more"
    )
    group.add_argument(
        "--verifiers", type=int, metavar="N", help="processes that judge for --verify (default: by --workers)"
    )
    group.add_argument(
        "--item-timeout", type=float, default=600.0, metavar="S", help="seconds for one utterance (default: 600)"
    )
    group.add_argument(
        "--stall-after", type=float, default=3600.0, metavar="S", help="seconds without progress (default: 3600)"
    )
    group.add_argument("--address", help="a Ray cluster: http://head:8265 or head:6379 (default: this machine alone)")
    group.add_argument("--json", action="store_true", help="print a summary as JSON")
    group.add_argument(
        "--no-progress", action="store_true", help="no progress bar, nor its lines where there is no terminal"
    )


def run(args: argparse.Namespace) -> int:
    from jobs.synthesis.input import ReadingOptions

    reading = ReadingOptions(
        args.chapters,
        args.include_matter,
        args.lines,
        limit=args.max_sentences,
        text_column=args.text_column,
        id_column=args.id_column,
        notes=args.notes,
        pauses=args.pause,
        cast=cast_of(args),
    )
    options = options_of(args, rows=args.rows, **_book_form(args))
    with told_to_go_on():
        summary = synthesize(
            args.inputs,
            args.output,
            args.voice,
            reading,
            speaking_of(args),
            options,
            lexicon=args.lexicon,
            device=device_of(args),
        )
    return tell(summary, args.json)


def _book_form(args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of `BookForm`, by the options of `_add_output`."""
    from jobs.synthesis.book_form import read_cover

    return {
        "book_format": args.format,
        "chapter_format": args.chapter_format,
        "read_along": args.read_along,
        "bitrate": args.bitrate,
        "title": " ".join((args.title or "").split()),
        "author": " ".join((args.author or "").split()),
        "cover": None if args.cover is None else read_cover(args.cover),
    }


def device_of(args: argparse.Namespace) -> str:
    """Return where the voice runs, by the options of `add_running`."""
    return args.device or profile_named(args.profile).device


def speaking_of(args: argparse.Namespace) -> Speaking:
    """Return how to speak, by the options of a request and those of `add_verifying`."""
    from jobs.synthesis.settings import GateConfig, Speaking

    asr = {} if args.asr is None else {"asr": args.asr}
    gate = GateConfig(tuple(args.verify), args.takes, **asr, target=args.verify_speaker) if args.verify else None
    return Speaking(
        request_settings(args),
        gate=gate,
        consent=args.consent,
        watermark=marking_of(args),
        watermark_asked=watermark_asked(args),
        **asr,
    )


def options_of(args: argparse.Namespace, **formats: Any) -> Options:
    """Return how the job runs, by the options of `add_going_on` and `add_running`."""
    from jobs.synthesis.job import Options
    from jobs.synthesis.pipeline import Running

    machine = profile_named(args.profile)
    gpus = (machine.gpus or 1.0) if args.gpus_per_worker is None else args.gpus_per_worker
    running = Running(
        least=args.min or args.workers,
        most=args.max or args.workers,
        address=args.address,
        gpus=gpus if device_of(args) == "cuda" else 0.0,
        verifiers=args.verifiers,
        item_s=args.item_timeout,
        memory_gib=machine.memory_gib if args.worker_memory is None else args.worker_memory,
        stall_s=args.stall_after,
    )
    return Options(
        **formats,
        running=running,
        overwrite=args.overwrite,
        update=args.update,
        retry_failed=args.retry_failed,
        signing=signing_of(args),
        progress=not args.no_progress,
    )


@contextmanager
def told_to_go_on() -> Iterator[None]:
    """Say, where the user stops the job, that it can go on."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise


def tell(summary: Summary, as_json: bool) -> int:
    """Print what a job did; returns its exit code."""
    if as_json:
        print(json.dumps({**asdict(summary), "rtf": summary.rtf, "exit_code": summary.exit_code}, ensure_ascii=False))
    else:
        _print(summary)
    return summary.exit_code


def synthesize(
    inputs: Sequence[str],
    output: str,
    voice: str | None = None,
    reading: ReadingOptions | None = None,
    speaking: Speaking | None = None,
    options: Options | None = None,
    *,
    lexicon: str | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
) -> Summary:
    """Read the inputs aloud into the folder `output`; the same call again goes on where an earlier one ended.

    Args:
        inputs: books and tables; see `jobs.synthesis.input.read_plan`.
        voice: a bundled voice's name or a folder; None is the default voice. Rows may ask for others.
        lexicon: a file of the user's own pronunciations.
        engine: speaks in place of a voice of ours.

    Raises:
        FlowTTSError: for inputs, settings, voices and outputs that cannot be used; nothing half-written remains.
    """
    from jobs.synthesis.input import ReadingOptions, read_plan
    from jobs.synthesis.settings import Speaking

    speaking, reading = speaking or Speaking(), reading or ReadingOptions()
    languages = language_check(output, voice, speaking, options, device, engine)
    languages.voices.require_cast(reading.cast)
    plan = read_plan(inputs, reading, speaking, languages)
    return speak_plan(plan, output, voice, speaking, options, lexicon=lexicon, device=device, engine=engine)


def speak_plan(
    plan: Plan,
    output: str,
    voice: str | None,
    speaking: Speaking,
    options: Options | None = None,
    *,
    lexicon: str | None = None,
    device: str = "cpu",
    engine: Engine | None = None,
) -> Summary:
    """Speak a plan into the folder `output`; otherwise as `synthesize`."""
    from flowtts_core.config import fingerprint
    from jobs.synthesis.job import Options, run_job

    output = output.rstrip("/") or output
    voice = voice if engine else _chosen(output, voice, options)
    words = read_lexicon(lexicon)
    speaking = replace(speaking, lexicon=fingerprint(words) if words else "")
    if not (options is not None and options.overwrite) and _begun_unmarked(output, speaking):
        print(
            "this job was begun without a watermark, and goes on without; --overwrite begins it anew", file=sys.stderr
        )
        speaking = replace(speaking, watermark=None)
    engine_of = None if engine else partial(voice_engine, device=device, lexicon=words)
    again = {"voice": voice, "device": device, "lexicon": words}
    engine = engine or voice_engine(voice, device, words)
    return run_job(plan, output, engine, speaking, options or Options(), engine_of, again)


def language_check(
    output: str,
    voice: str | None,
    speaking: Speaking,
    options: Options | None,
    device: str,
    engine: Engine | None = None,
) -> LanguageCheck:
    """Return what refuses texts in other languages than the job's voices read; arguments as of `synthesize`."""
    from jobs.synthesis.engine import Voices
    from jobs.synthesis.languages import LanguageCheck

    own = engine or voice_engine(_chosen(output.rstrip("/") or output, voice, options), device, {})
    find = None if engine else partial(voice_engine, device=device, lexicon={})
    return LanguageCheck(Voices(own, find), speaking)


def _chosen(output: str, voice: str | None, options: Options | None) -> str | None:
    """The voice that is asked for, else the one that the job in the folder was begun with."""
    return voice if voice is not None or (options is not None and options.overwrite) else _begun_with(output)


def _begun_with(output: str) -> str | None:
    """The bundled voice that a job in the folder was begun with: a version with another default voice goes on with that one."""
    from cluster.storage import Storage
    from flowtts_core.voice import bundled_voices, load_card
    from jobs.synthesis.folder import JOB, read_json

    held = read_json(Storage(output), JOB) or {}
    prints = {load_card(folder).fingerprint: name for name, folder in bundled_voices().items()}
    return prints.get(held.get("voice_fingerprint", ""))


def _begun_unmarked(output: str, speaking: Speaking) -> bool:
    """Whether a job in the folder was begun without a watermark, as all of earlier versions were, and nothing asks for one.

    Half of it marked would be neither what was asked then nor what is asked now.
    """
    from cluster.storage import Storage
    from jobs.synthesis.folder import JOB, read_json

    if speaking.watermark is None or speaking.watermark_asked:
        return False
    settings = (read_json(Storage(output), JOB) or {}).get("settings")
    return isinstance(settings, dict) and "watermark" not in settings


def go_on(
    output: str,
    *,
    workers: int | None = None,
    address: str | None = None,
    engine: Engine | None = None,
    watermark_key: str | None = None,
    signing: Signing | None = None,
    repair: Repair | None = None,
) -> Summary:
    """Go on with the job in a folder, from what lies there alone: its inputs are not read again.

    Args:
        watermark_key: the file of the key, where the job marks by one; by default the environment's.
        signing: signs books and provenance; without it what was signed is no longer.
        repair: what is damaged or too much: deleted or spoken again once all else has been found in order.

    Raises:
        OutputError: where there is no job, a voice of it is no longer there or has changed, or its mark cannot be made.
        VoiceError: where its own voice is no longer there.
    """
    from cluster.storage import Storage
    from flowtts_core.errors import OutputError
    from jobs.synthesis.book_form import form_of
    from jobs.synthesis.engine import Voices
    from jobs.synthesis.folder import JOB, require_format, stored_job
    from jobs.synthesis.job import Options, run_job
    from jobs.synthesis.pipeline import Running
    from jobs.synthesis.plan import Plan
    from jobs.synthesis.settings import Speaking

    storage = Storage(output)
    stored = stored_job(storage)
    again, job = dict(stored.notes["again"]), json.loads(storage.read(JOB))
    require_format(storage, job)
    rows = again.pop("rows")
    form = form_of(storage, again.pop("book_format"), again.pop("chapter_format"), again.pop("book", {}))
    device, words = again.get("device", "cpu"), again.get("lexicon", {})
    resolve = None if engine else partial(voice_engine, device=device, lexicon=words)
    engine = engine or voice_engine(again.get("voice") or _begun_with(output), device, words)
    if engine.fingerprint != job["voice_fingerprint"]:
        raise OutputError(
            f"{output}: voice {engine.name} is not the one that spoke here", "put that voice back in its place"
        )
    _require_voices(output, stored, job["voice"], Voices(engine, resolve))
    running = Running(least=workers, most=workers, address=address, gpus=float(device == "cuda"))
    plan = Plan(stored.notes["title"], stored.notes["kind"], tuple, tuple(stored.notes["sources"]))
    settings = dict(job["settings"])
    gate, fingerprint, whole = settings.pop("gate", None), settings.pop("lexicon", ""), settings.pop("whole", False)
    mark = _same_mark(output, settings.pop("watermark", None), watermark_key)
    speaking = Speaking(settings, fingerprint, None if gate is None else _gate(gate), whole, watermark=mark)
    options = Options(**vars(form), running=running, rows=rows, signing=signing)
    return run_job(plan, output, engine, speaking, options, resolve, again, stored, repair=repair)


def _require_voices(output: str, stored: StoredPlan, own: str, voices: Voices) -> None:
    """Raise OutputError where a voice that rows of a job ask for is no longer there, or has changed."""
    from flowtts_core.errors import OutputError

    for name, facts in stored.notes["voices"].items():
        if name == own:
            continue
        if problem := voices.problem(name):
            raise OutputError(f"{output}: a row {problem}", "put that voice back in its place")
        if voices.find(name).fingerprint != facts["fingerprint"]:
            raise OutputError(
                f"{output}: voice {name} is not the one that spoke here", "put that voice back in its place"
            )


def _same_mark(output: str, noted: dict[str, Any] | None, key_file: str | None) -> Marking | None:
    """The mark that a job was begun with; None where it was begun without.

    Raises:
        OutputError: where it had another key, or another program's mark.
    """
    from flowtts_core.errors import OutputError
    from flowtts_core.watermark.marking import Marking, read_key

    if noted is None:
        return None
    keyed = "key" in noted
    mark = Marking(noted["number"], read_key(key_file, "--watermark-key") if keyed else b"")
    if keyed and not mark.key:
        raise OutputError(f"{output}: it is marked by the key {noted['key']}", "give it: --watermark-key FILE")
    if keyed and mark.identity.get("key") != noted["key"]:
        given = mark.identity["key"]
        raise OutputError(
            f"{output}: it is marked by the key {noted['key']}, and {given} was given",
            "give the key that it was begun with: --watermark-key FILE",
        )
    if mark.identity != noted:
        raise OutputError(
            f"{output}: it is marked by {noted.get('mark')}, and this version marks by {mark.identity['mark']}",
            "go on with the version that began it, or speak it anew with --overwrite",
        )
    return mark


@dataclass(frozen=True)
class MakeVoice:
    """Opens a voice in a worker's process, on one thread, with the user's words before the voice's own."""

    voice: str
    device: str
    lexicon: dict[str, str]

    def __call__(self) -> UtteranceSynthesizer:
        from flowtts_core.voice import open_voice

        return open_voice(self.voice, device=self.device, threads=1, lexicon=self.lexicon)


def voice_engine(voice: str | None, device: str, lexicon: dict[str, str]) -> Engine:
    """The engine of a voice; only its card is read here, the weights in the workers.

    Raises:
        VoiceError: where there is no such voice or its card is damaged.
    """
    from flowtts_core.config import to_dict
    from flowtts_core.voice import find_voice, found_anywhere, load_card, with_lexicon
    from jobs.synthesis.engine import Engine

    folder = find_voice(voice)
    card = with_lexicon(load_card(folder), lexicon)
    place = voice if voice is not None and found_anywhere(voice) else str(folder.absolute())
    return Engine(
        voice if voice is not None else card.name,
        load_card(folder).fingerprint,
        MakeVoice(place, device, lexicon),
        steps=card.sampling.steps,
        frontend=card.parts.get("frontend"),
        make_on_cpu=MakeVoice(place, "cpu", lexicon) if device != "cpu" else None,
        licence=card.licence,
        source=card.source,
        languages=card.languages,
        speakers=card.speakers,
        sampling=to_dict(card.sampling),
    )


def _gate(noted: dict[str, Any]) -> GateConfig:
    """A gate from its JSON form; raises where the file of the speaker to compare with has changed."""
    from flowtts_core.errors import ConfigError
    from jobs.synthesis.settings import GateConfig

    gate = GateConfig(tuple(noted["require"]), noted["takes"], noted["asr"], noted["target"])
    if gate.target_digest != noted["target_digest"]:
        raise ConfigError(
            f"--verify-speaker {gate.target}: not the file that the job compared with", "put that file back"
        )
    return gate


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _print(summary: Summary) -> None:
    from jobs.synthesis.report import clock

    what = _counted(summary.ok, "sentence" if summary.kind == "book" else "row")
    print(f"{summary.title}: {clock(summary.seconds)} of audio from {what}, in {clock(summary.wall_s)}")
    if summary.kind == "book" and summary.files:
        print(f"  {summary.output}/{summary.files[0]}")
        for name in summary.files:
            if name.endswith(".epub"):
                print(f"  {summary.output}/{name}")
    elif summary.books:
        print(f"  {_counted(summary.books, 'book')} in {summary.output}/books/")
    print(f"  {summary.output}/report.html")
    print(f"  {summary.marked}")
    for name, value in summary.scores.items():
        print(f"  {name} {value:.3g} on average")
    if summary.spoken_again or summary.unverified:
        print(f"  {summary.spoken_again} better in a later take, {summary.unverified} good in none")
    if summary.in_part:
        print(f"  {_counted(summary.in_part, 'text')} not spoken in full: column `dropped` of manifest.parquet")
        print(f"    {summary.most_dropped}")
    for note in summary.notes[:_NOTES_SHOWN]:
        print(f"  {note}")
    if len(summary.notes) > _NOTES_SHOWN:
        print(f"  and {len(summary.notes) - _NOTES_SHOWN} notes more in report.html")
    if summary.failed:
        reason, count = next(iter(summary.reasons.items()))
        print(f"  {summary.failed} set aside in quarantine.jsonl, {count} of them: {reason}")
