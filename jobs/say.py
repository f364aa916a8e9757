"""`flowtts say`: one text to one sound file, or to the loudspeaker, without Ray and at once."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError, DependencyError, OutputError, TextError
from jobs.request_options import (
    add_cast_options,
    add_clone_options,
    add_lexicon_option,
    add_request_options,
    add_signing_options,
    add_watermark_options,
    cast_of,
    marking_of,
    prepared_clone,
    read_lexicon,
    request_settings,
    signing_of,
)

if TYPE_CHECKING:
    import numpy as np

    from flowtts_core.credentials import Statement
    from flowtts_core.engines.base import Synthesizer
    from flowtts_core.engines.several import SeveralVoices
    from flowtts_core.signing import Signing

PLAYERS = (("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"), ("paplay",), ("aplay", "-q"), ("afplay",))


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "say",
        help="say a text at once",
        description="Say a text at once. The same text, voice and seed always give the same sound.",
        epilog='examples:\n  flowtts say "Good evening." --play\n  echo "Good evening." | flowtts say - -o evening.mp3\n'
        '  flowtts say "Wait. [pause:2s] [rate:0.8]Listen.[/rate]"\n  flowtts say --ssml - < talk.ssml\n'
        '  flowtts say "Good evening." --voice voices/f5 --clone me.wav --ref-text "What I say in me.wav."',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("text", help="what to say; - reads it from standard input")
    parser.add_argument(
        "-o", "--output", type=Path, help=".wav .flac .mp3 .ogg or .opus (default: speech.wav, none with --play)"
    )
    parser.add_argument("--play", action="store_true", help="play it on this machine's loudspeaker")
    parser.add_argument(
        "--voice", help="a bundled voice's name, a voice folder or hf://owner/name (default: the bundled one)"
    )
    add_request_options(parser)
    add_clone_options(parser)
    add_cast_options(parser)
    add_lexicon_option(parser)
    add_watermark_options(parser)
    add_signing_options(parser)
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    text = require_unicode(sys.stdin.read() if args.text == "-" else args.text)
    output = args.output or (None if args.play else Path("speech.wav"))
    if output is None and (args.sign_key or args.sign_chain):
        raise ConfigError("--sign-key signs a file, and --play alone makes none", "give -o FILE too")
    signing = signing_of(args)
    player = find_player() if args.play else None
    if output is not None:
        require_place(output)
    started = time.perf_counter()
    from flowtts_core.engines.several import SeveralVoices
    from flowtts_core.text.cast import directed_text
    from flowtts_core.voice import open_voice

    cast, words, marking = cast_of(args), read_lexicon(args.lexicon), marking_of(args)
    if cast and args.input_type == "ssml":
        raise ConfigError("--cast and --dialogue are for plain texts", 'write <voice name="..."> in SSML')
    text = directed_text(text, cast) if cast else text
    synthesizer = SeveralVoices(open_voice(args.voice, lexicon=words), partial(open_voice, lexicon=words))
    loaded = time.perf_counter()
    settings, reference = request_settings(args), None
    if args.prompt is not None:
        synthesizer.check_settings(
            {"prompt": args.prompt}
        )  # a voice that takes none says so before anything is transcribed
        language = args.language or next(iter(synthesizer.languages), "en")
        reference = prepared_clone(args.prompt, args.prompt_text, args.asr, language)
        settings |= {"prompt": reference.clip, "prompt_text": reference.text}
    prepared = time.perf_counter()
    waveform = speak(synthesizer, text, settings, noted=reference is not None)
    if marking is not None:
        waveform = marking.marked(waveform, synthesizer.sample_rate)
    if output is not None:
        statement = None if signing is None else _statement(args, synthesizer)
        write(output, waveform, synthesizer.sample_rate, signing, statement)
    summary: dict[str, Any] = {
        "output": None if output is None else str(output),
        "seconds": round(len(waveform) / synthesizer.sample_rate, 3),
        "load_s": round(loaded - started, 3),
        "synthesis_s": round(time.perf_counter() - prepared, 3),
        "watermark": None if marking is None else marking.identity,
        "signed": None if signing is None else signing.facts,
    }
    if reference is not None:
        summary["reference"] = reference.provenance(args.prompt, args.consent)
    if player is not None:
        play(player, waveform, synthesizer.sample_rate)
    if args.json:
        print(json.dumps(summary))
    elif output is not None:
        made = f"{summary['seconds']:.1f} s of speech, made in {summary['synthesis_s']:.2f} s"
        signed = "" if signing is None else f", signed by {signing.signer}"
        mark = "without a watermark" if marking is None else f"watermark number {marking.number}"
        print(f"{output}: {made}, {mark}{signed}")
    return 0


def _statement(args: argparse.Namespace, spoken: SeveralVoices) -> Statement:
    """Return what is signed of a text that was spoken: by which voices, under which licences, and who agreed."""
    from flowtts_core.credentials import Statement
    from flowtts_core.voice import find_voice, load_card

    cards = [load_card(find_voice(args.voice if name is None else name)) for name in spoken.used]
    names, licences = ({getattr(card, field) for card in cards} - {""} for field in ("name", "licence"))
    consent = args.consent if args.prompt is not None else ""
    return Statement(voice=", ".join(sorted(names)), licence=", ".join(sorted(licences)), consent=consent)


def require_unicode(text: str) -> str:
    """Return the text; raise TextError where bytes of it are no UTF-8, which Python keeps as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text is no UTF-8 at character {error.start + 1}", "convert it: iconv -f latin1 -t utf-8 FILE"
        ) from error
    return text


def speak(synthesizer: Synthesizer, text: str, settings: dict[str, Any], *, noted: bool = False) -> np.ndarray:
    """Speak a text as one waveform [S]; what of it cannot be spoken is told on standard error, as is what a voice notes.

    Args:
        settings: fields of `SynthesisRequest`.
        noted: what the voice would note is told already.

    Raises:
        TextError: when there is nothing to say, or it cannot be said.
    """
    from flowtts_core.engines.base import SynthesisFailure
    from flowtts_core.request import SynthesisRequest

    if not text.strip():
        raise TextError("there is nothing to say: the text is empty", 'give a text, for example: flowtts say "Hello."')
    [result] = synthesizer.synthesize([SynthesisRequest(text=text, **settings)])
    if isinstance(result, SynthesisFailure):
        raise TextError(f"cannot say {text[:60]!r}: {result.reason}")
    if result.dropped:
        print(f"not spoken: {', '.join(result.dropped)}", file=sys.stderr)
    for note in () if noted else result.notes:
        print(f"note: {note}", file=sys.stderr)
    return result.waveform


def require_place(path: Path) -> None:
    """Find out before the voice is loaded that the file can be written; makes its folder.

    Raises:
        AudioError: for a suffix that cannot be written.
        OutputError: when the folder cannot be made or takes no files.
    """
    from flowtts_core.audio.files import require_known

    require_known(path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "choose another place with -o") from error


def write(
    path: Path,
    waveform: np.ndarray,
    sample_rate: int,
    signing: Signing | None = None,
    statement: Statement | None = None,
) -> None:
    """Write the file, with credentials where `signing` is given: it is never there without them.

    Args:
        statement: what the credentials say.

    Raises:
        OutputError: when the place cannot be written.
    """
    from flowtts_core.audio.files import write_audio
    from flowtts_core.credentials import credentials_place, sign_file
    from flowtts_core.files import PARTIAL

    try:
        if signing is None:
            write_audio(path, waveform, sample_rate)
            if (of_before := credentials_place(path)) != path:
                of_before.unlink(missing_ok=True)  # it was of the sound that is written over, and would read as changed
            return
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=path.parent) as folder:
            unsigned = Path(folder) / path.name
            write_audio(unsigned, waveform, sample_rate)
            sign_file(unsigned, path, signing.key, signing.chain, statement, replace=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "choose another place with -o") from error


def find_player() -> list[str]:
    """The command that plays a file here, without the file.

    Raises:
        DependencyError: when there is none.
    """
    for program, *options in PLAYERS:
        if shutil.which(program):
            return [program, *options]
    names = ", ".join(player[0] for player in PLAYERS)
    raise DependencyError(f"no program to play sound with: looked for {names}", "apt-get install ffmpeg, or -o FILE")


def play(player: Sequence[str], waveform: np.ndarray, sample_rate: int) -> None:
    """Play [S] and wait until it ends.

    Raises:
        OutputError: when the player fails, for instance without a sound device.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        write(file, waveform, sample_rate)
        done = subprocess.run([*player, str(file)], capture_output=True, text=True)
    if done.returncode:
        raise OutputError(f"{player[0]} could not play: {done.stderr.strip()[:200]}", "use -o FILE instead of --play")
