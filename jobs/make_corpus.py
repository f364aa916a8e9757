"""`flowtts corpus`: make a training corpus by letting a voice read texts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.synthesize import (
    add_columns,
    add_going_on,
    add_running,
    add_speaking,
    add_verifying,
    device_of,
    language_check,
    options_of,
    speak_plan,
    speaking_of,
    tell,
    told_to_go_on,
)

if TYPE_CHECKING:
    from jobs.corpus.teach import TextLimits
    from jobs.synthesis.input import ReadingOptions
    from jobs.synthesis.job import Options
    from jobs.synthesis.settings import Speaking
    from jobs.synthesis.summary import Summary

DESCRIPTION = """\
Let a teacher read texts aloud: a folder of audio/ID.flac and metadata.csv, which `flowtts prepare` takes.

Each sentence of a book, or each row of a table, is one clip. English texts are written out in words first ("In 1470" is
"In fourteen seventy"), so that teacher and pupil read them alike. The work is a synthesis job: it runs on all cores or a
cluster, a stopped one goes on when the same command runs again, and with --verify each clip is heard, and spoken again if
need be. Texts that are too short or too long, or cannot be spoken, are listed in quarantine.jsonl with the reason.

Teachers are voices of any kind: bundled ones, folders of `flowtts import` and `flowtts train`, or flite:VOICE where CMU
Flite is installed. What a teacher's licence allows holds for its pupils: the dataset card (README.md) names it."""

EPILOG = """\
examples:
  flowtts corpus book.epub --teacher heart -o corpus/
  flowtts corpus texts.tsv --teacher voices/joe -o corpus/ --verify 'cer<0.3'
  flowtts corpus texts.tsv --teacher voices/kokoro@am_michael -o corpus/ --max-sentences 2000
  flowtts prepare corpus/ -o data/ --resample                       then: flowtts train data/ -o voices/mine

exit codes: as `flowtts synthesize`: 0 all is read; 3 done, but some texts were set aside; 1 failed; 2 wrong usage; 130
interrupted; 143 terminated."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "corpus",
        help="let a voice read texts, to train another",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="TEXTS", help="books, tables, lists of inputs; folders, patterns, s3://"
    )
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where the corpus goes; local or s3://")
    parser.add_argument("--teacher", metavar="VOICE[@SPEAKER]", help="the voice that reads (default: the bundled one)")
    reading = parser.add_argument_group("what is read")
    reading.add_argument("--lines", action="store_true", help="each line of a text is a clip, whatever its sentences")
    add_columns(reading)
    reading.add_argument("--max-sentences", type=int, metavar="N", help="only the first N sentences or rows")
    reading.add_argument(
        "--min-chars", type=int, default=4, metavar="N", help="shorter texts are set aside (default: 4)"
    )
    reading.add_argument("--max-chars", type=int, default=250, metavar="N", help="and longer ones (default: 250)")
    add_speaking(parser)
    add_verifying(parser)
    add_going_on(parser.add_argument_group("what is done with a folder that was begun"))
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from flowtts_core.errors import ConfigError
    from flowtts_core.voice import split_speaker
    from jobs.corpus.teach import TextLimits
    from jobs.synthesis.input import ReadingOptions

    reading = ReadingOptions(
        lines=args.lines,
        sentences=True,
        limit=args.max_sentences,
        text_column=args.text_column,
        id_column=args.id_column,
    )
    limits = TextLimits(args.min_chars, args.max_chars)
    if args.speaker and split_speaker(args.teacher)[1]:
        raise ConfigError(
            f"--teacher {args.teacher} and --speaker {args.speaker} name two speakers", "give one of them"
        )
    with told_to_go_on():
        summary = make_corpus(
            args.inputs, args.output, args.teacher, reading, speaking_of(args), limits, options_of(args),
            lexicon=args.lexicon, device=device_of(args),
        )  # fmt: skip
    return tell(summary, args.json)


def make_corpus(
    inputs: Sequence[str],
    output: str,
    teacher: str | None,
    reading: ReadingOptions,
    speaking: Speaking,
    limits: TextLimits,
    options: Options,
    *,
    lexicon: str | None = None,
    device: str = "cpu",
) -> Summary:
    """Let the voice read the inputs, sentence by sentence, into a corpus; the same call again goes on.

    Args:
        teacher: VOICE[@SPEAKER], where VOICE is a bundled voice's name, a folder, or flite:VOICE; None is the default voice.

    Raises:
        FlowTTSError: for inputs, voices, settings and outputs that cannot be used.
    """
    from flowtts_core.voice import split_speaker
    from jobs.corpus.teach import require_speaker, teaching_plan
    from jobs.synthesis.input import read_plan

    (voice, speaker), speaking = split_speaker(teacher), replace(speaking, whole=True)
    require_speaker(voice, speaker)
    spoken_by = replace(speaking, settings={**speaking.settings, **({"speaker": speaker} if speaker else {})})
    languages = language_check(output, voice, spoken_by, options, device)
    plan = read_plan(inputs, replace(reading, sentences=True), speaking, languages)
    plan = teaching_plan(plan, voice, speaker, speaking, limits)
    return speak_plan(plan, output, voice, speaking, options, lexicon=lexicon, device=device)
