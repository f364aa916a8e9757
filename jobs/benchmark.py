"""`flowtts benchmark`: measures what we claim, with the machine and how busy it was, and writes it as JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowtts_core.errors import ConfigError, OutputError
from flowtts_core.voice.card import FLOW_VOICE

PARTS = ("quality", "speed", "ready")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "benchmark",
        help="measure quality and speed",
        description="Measure a voice: is it understood, does it sound clean, is it the same voice, is it fast.",
    )
    kinds = parser.add_subparsers(title="what to measure", metavar="KIND", required=True)
    _add_synthesis(kinds)
    _add_distances(kinds)
    _add_judges(kinds)
    _add_evaluation(kinds)
    _add_engine(kinds)
    _add_serving(kinds)
    _add_training(kinds)
    _add_scale(kinds)
    _add_voices(kinds)
    _add_vocoders(kinds)
    _add_codecs(kinds)
    _add_watermark(kinds)
    _add_fakes(kinds)
    _add_acoustic(kinds)
    for kind in kinds.choices.values():
        kind.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")


def _kind(
    kinds: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, description: str, example: str
) -> Any:
    kind = kinds.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kind.set_defaults(run=run)
    return kind


def _add_synthesis(kinds: Any) -> None:
    synthesis = _kind(
        kinds, "synthesis", run,
        help="a voice against its teacher, and its speed",
        description="Quality against the teacher on the same texts, speed on one thread, time until the first sound.",
        example="flowtts benchmark synthesis --texts held_out.tsv --n 200 --json figures.json",
    )  # fmt: skip
    synthesis.add_argument(
        "--voice", default=FLOW_VOICE, help="a bundled voice's name or a voice folder (default: %(default)s)"
    )
    synthesis.add_argument(
        "--texts",
        type=Path,
        help="one text a line, or TSV with a header, kept out of training (default: a chapter of Alice)",
    )
    synthesis.add_argument("--n", type=int, default=200, help="texts to judge, from the file's end (default: 200)")
    synthesis.add_argument("--ablation-n", type=int, default=50, help="texts for each number of steps (default: 50)")
    teacher = synthesis.add_mutually_exclusive_group()
    teacher.add_argument(
        "--teacher", metavar="VOICE[@SPEAKER]", help="whom it is compared with (default: flite:rms, where installed)"
    )
    teacher.add_argument("--teacher-audio", type=Path, metavar="FOLDER", help="recordings of the teacher, ID.wav")
    synthesis.add_argument("--what", default=",".join(PARTS), help=f"of {','.join(PARTS)} (default: all)")
    synthesis.add_argument("--workers", type=int, help="processes for the judges (default: one per core)")


def _add_distances(kinds: Any) -> None:
    distances = _kind(
        kinds, "distances", run_distances,
        help="KAD against FAD as the sample grows",
        description="Bias, spread and time of KAD and FAD from 25 to 5,000 samples, as a page with its figure.",
        example="flowtts benchmark distances -o docs/",
    )  # fmt: skip
    distances.add_argument("-o", "--output", type=Path, default=Path("docs"), help="folder of the page (default: docs)")
    distances.add_argument("--draws", type=int, default=20, help="samples drawn of each size (default: 20)")


def _add_judges(kinds: Any) -> None:
    judges = _kind(
        kinds, "judges", run_judges,
        help="what the judges say of speech that is damaged in known ways",
        description="Damage real speech in known ways, one at a time, and show which figures move; tell speakers apart.",
        example="flowtts benchmark judges --speech ljspeech/ --speakers librispeech/test-other/ -o docs/",
    )  # fmt: skip
    judges.add_argument("--speech", type=Path, required=True, help="recordings with texts, as `flowtts prepare` reads")
    judges.add_argument("--speakers", type=Path, required=True, help="a folder with a folder of recordings per speaker")
    judges.add_argument("-o", "--output", type=Path, default=Path("docs"), help="folder of the page (default: docs)")
    judges.add_argument("--n", type=int, default=24, help="clips to damage, from the first (default: 24)")
    judges.add_argument("--workers", type=int, help="processes for the judges (default: one per core)")
    judges.add_argument("--keep", type=Path, metavar="FOLDER", help="keep each clip's figures here; a cut run goes on")


def _add_evaluation(kinds: Any) -> None:
    evaluation = _kind(
        kinds, "evaluation", run_evaluation,
        help="how judging scales from one worker to more",
        description="Judge the same clips with each number of workers, and compare.",
        example="flowtts benchmark evaluation --source ljspeech/ --clips 1000 --workers 1,2",
    )  # fmt: skip
    evaluation.add_argument("--source", required=True, help="clips, as `flowtts evaluate` reads; repeated as need be")
    evaluation.add_argument("--clips", type=int, default=1000, help="how many to judge (default: 1000)")
    evaluation.add_argument("--workers", default="1,2", help="numbers of workers to compare (default: 1,2)")
    evaluation.add_argument("--judges", default="words,opinions,speaker,shape", help="who judges (default: all four)")


def _add_training(kinds: Any) -> None:
    training = _kind(
        kinds, "training", run_training,
        help="what lost workers cost a training",
        description="Train twice, left alone and with one worker killed every so many seconds, and compare.",
        example="flowtts benchmark training --data data/ --steps 600 --every 60",
    )  # fmt: skip
    training.add_argument("--data", required=True, help="folder made by `flowtts prepare`")
    training.add_argument("--recipe", default="matcha", help="what to train (default: matcha)")
    training.add_argument("--steps", type=int, default=600, help="optimiser steps (default: 600)")
    training.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    training.add_argument("--every", type=float, default=60.0, help="seconds between kills (default: 60)")
    training.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="of the recipe"
    )
    training.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep both runs here; a finished one is not redone"
    )


def _add_scale(kinds: Any) -> None:
    scale = _kind(
        kinds, "scale", run_scale,
        help="how synthesis jobs scale, and what Ray and our bookkeeping cost",
        description="The job against a bare loop over the same voice, workers, and jobs of a model that does "
        "nothing at 10^3 to 10^6 rows, in one run.",
        example="flowtts benchmark scale --texts sentences.tsv --n 2000 --json figures.json",
    )  # fmt: skip
    scale.add_argument(
        "--voice", default=FLOW_VOICE, help="a bundled voice's name or a voice folder (default: %(default)s)"
    )
    scale.add_argument("--texts", type=Path, help="one text a line, or TSV with a header (default: a chapter of Alice)")
    scale.add_argument(
        "--n", type=int, default=2000, help="texts, 50 a round or more; repeated as need be (default: 2000)"
    )
    scale.add_argument("--workers", default="1,2", help="numbers of processes to compare (default: 1,2)")
    scale.add_argument(
        "--rounds", type=int, default=1, help="turns of bare loop and job, on parts of the texts (default: 1)"
    )
    scale.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of jobs and bare loops (default: cpu)")
    scale.add_argument("--null-rows", default="1000,10000,100000,1000000", help="sizes of the jobs without a model")
    scale.add_argument("--what", default="ray,null", help="of ray,null (default: both)")


def _add_voices(kinds: Any) -> None:
    voices = _kind(
        kinds, "voices", run_voices,
        help="voices side by side: naturalness, words understood, speed, size, memory",
        description="Speak the same texts with each voice, in turns, on one thread and on two; judge what they said.",
        example="flowtts benchmark voices heart natural@michael voices/joe voices/kokoro@am_michael --texts held_out.tsv --n 40",
    )  # fmt: skip
    voices.add_argument("voices", nargs="+", metavar="VOICE", help="a voice's name or folder, or VOICE@SPEAKER")
    voices.add_argument(
        "--texts", type=Path, help="one text a line, or TSV with a header (default: a chapter of Alice)"
    )
    voices.add_argument("--n", type=int, default=40, help="texts, from the file's end (default: 40)")
    voices.add_argument("--asr", default="pocketsphinx", help="what transcribes, as in flowtts evaluate")
    voices.add_argument("--language", help="of the texts, for voices of several (default: each voice's own)")
    voices.add_argument(
        "--write-cards",
        action="store_true",
        help="write the figures into the voices' cards, which flowtts voices and the server's page show",
    )


def _add_watermark(kinds: Any) -> None:
    watermark = _kind(
        kinds, "watermark", run_watermark,
        help="a watermark: how quiet it is, what it survives, where it is found, what it costs",
        description="Mark pieces of held-out recordings, attack them (coding, resampling, noise, cuts, speed, pitch, echo), and"
        " look for the mark and its message; set the threshold on sound without marks; measure speed on one thread.",
        example="flowtts benchmark watermark --clips ljspeech/ --clips librispeech/test-other/ --unmarked speech/",
    )  # fmt: skip
    watermark.add_argument(
        "--mark", type=Path, metavar="FOLDER", help="a watermark's folder (default: the bundled one)"
    )
    watermark.add_argument(
        "--clips",
        action="append",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="recordings that it was not trained on; may be given again",
    )
    watermark.add_argument(
        "--unmarked",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="further sound without marks, human or not, to set the threshold by; may be given again",
    )
    watermark.add_argument(
        "--through",
        action="append",
        default=[],
        metavar="VOCODER|CODEC",
        help="also attack by making the sound anew, by a vocoder (name or folder) or a codec (folder); may be given again",
    )
    watermark.add_argument("--n", type=int, default=40, help="clips of each folder to attack (default: 40)")
    watermark.add_argument("--seconds", type=float, default=3.0, help="length of each piece (default: 3)")
    watermark.add_argument("--threshold", type=float, help="of scores (default: set by the sound without marks)")


def _add_fakes(kinds: Any) -> None:
    fakes = _kind(
        kinds, "fakes", run_fakes,
        help="how well synthetic speech is told from human, of engines never heard; and the net that tells",
        description="Train small nets on human and synthetic speech, each without some families of engines, and measure how well"
        " they tell those from readers whom no net heard (equal error rate with its interval), and whether a watermark changes"
        " what they say. With -o, train one on all, with probabilities calibrated by the engines that were left out.",
        example="flowtts benchmark fakes plan.toml -o fakes/mine --json figures.json",
    )  # fmt: skip
    fakes.add_argument("plan", type=Path, metavar="PLAN.toml", help="who is heard, and who is not: docs/watermark.md")
    fakes.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="train the net of all engines into this folder"
    )
    fakes.add_argument("--steps", type=int, default=400, help="of the training of each net (default: 400)")


def _add_vocoders(kinds: Any) -> None:
    vocoders = _kind(
        kinds, "vocoders", run_vocoders,
        help="vocoders side by side on held-out recordings: quality, cost, flows by their steps",
        description="Copy held-out recordings by each vocoder, between Griffin-Lim and the recordings themselves, and judge the"
        " copies; measure size, speed by threads and runtime, and the wait for a stream's first sound. With --steps also what"
        " flows make of other numbers of steps. With --against, time our code against published code with the same weights.",
        example="flowtts benchmark vocoders --vocoder mine=vocoders/mine --vocoder natural=natural --clips ljspeech/ -o docs/\n"
        "  flowtts benchmark vocoders --vocoder rfwave=vocoders/rfwave --clips ljspeech/ --steps 1,2,4,6,10,20"
        " --grids uniform,straightness -o docs/\n  flowtts benchmark vocoders --against vocos,hifigan",
    )  # fmt: skip
    vocoders.add_argument(
        "--vocoder",
        action="append",
        default=[],
        dest="vocoders",
        metavar="NAME=FOLDER|VOICE",
        help="a vocoder's folder, or a voice that has one; may be given again",
    )
    vocoders.add_argument(
        "--clips",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="recordings that no vocoder was trained on; may be given again, and each has its own table",
    )
    vocoders.add_argument("--n", type=int, default=40, help="clips of each folder, evenly over it (default: 40)")
    vocoders.add_argument("--steps", metavar="N,...", help="also measure flows with these numbers of steps")
    vocoders.add_argument(
        "--grids",
        default="uniform",
        metavar="NAME,...",
        help="time grids of --steps (default: uniform), as straightness",
    )
    vocoders.add_argument(
        "--pitch",
        choices=("swift_f0", "torchcrepe"),
        default="swift_f0",
        help="what finds periodicity and voicing (default: swift_f0; torchcrepe has to be installed)",
    )
    vocoders.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write vocoders.md here, and its figure")
    vocoders.add_argument("--players", type=Path, metavar="FILE", help="write an HTML page with players here")
    vocoders.add_argument("--workers", type=int, help="processes for the judges (default: one per core)")
    vocoders.add_argument("--keep", type=Path, metavar="FOLDER", help="keep sounds and figures here; a cut run goes on")
    vocoders.add_argument(
        "--against",
        metavar="NAME,...",
        help="published code to be timed against: vocos (its package), hifigan (transformers)",
    )
    vocoders.add_argument("--threads", type=int, default=1, help="of --against (default: 1)")


def _add_codecs(kinds: Any) -> None:
    codecs = _kind(
        kinds, "codecs", run_codecs,
        help="codecs side by side on held-out recordings: rate, quality, use of codebooks, cost",
        description="Copy held-out recordings through each codec, through Opus and, where its programs are installed, Codec2, and"
        " judge the copies.",
        example="flowtts benchmark codecs --codec mine=codecs/mine@6,3,1.5 --clips ljspeech/ -o docs/ --players codecs.html",
    )  # fmt: skip
    codecs.add_argument(
        "--codec",
        action="append",
        default=[],
        dest="codecs",
        metavar="NAME=FOLDER[@KBPS,...]",
        help="a codec's folder, and rates at which to measure it (default: all codebooks); may be given again",
    )
    codecs.add_argument(
        "--clips",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="recordings that no codec was trained on; may be given again, and each has its own table",
    )
    codecs.add_argument(
        "--probes",
        type=Path,
        metavar="DATA",
        help="a folder of flowtts prepare, with pitch and several speakers: tell what can be read of each attribute of the"
        " codecs, which are those that convert",
    )
    codecs.add_argument(
        "--probe-share",
        type=float,
        default=0.02,
        metavar="X",
        help="share of its clips that probes are tried on (default: %(default)s, those that a training holds out)",
    )
    codecs.add_argument("--n", type=int, default=24, help="clips of each folder, evenly over it (default: 24)")
    codecs.add_argument("--asr", metavar="KIND[:MODEL]", help="also compare words, as faster-whisper:base hears them")
    codecs.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write codecs-measured.md here")
    codecs.add_argument("--players", type=Path, metavar="FILE", help="write an HTML page with players here")
    codecs.add_argument("--workers", type=int, help="processes for the judges (default: one per core)")
    codecs.add_argument("--keep", type=Path, metavar="FOLDER", help="keep sounds and figures here; a cut run goes on")


def _add_acoustic(kinds: Any) -> None:
    acoustic = _kind(
        kinds, "acoustic", run_acoustic,
        help="acoustic models against published code",
        description="Time our code against published code with the same sizes, random weights, noise and steps, in turns.",
        example="flowtts benchmark acoustic --against f5 --size base --steps 4 --threads 2",
    )  # fmt: skip
    acoustic.add_argument("--against", metavar="NAME,...", default="f5", help="published code: f5 (default: f5)")
    acoustic.add_argument("--size", choices=("base", "small", "debug"), default="base", help="(default: base)")
    acoustic.add_argument("--steps", type=int, default=4, help="of the flow; time grows with them (default: 4)")
    acoustic.add_argument("--turns", type=int, default=3, help="that each takes (default: 3)")
    acoustic.add_argument("--threads", type=int, default=1, help="(default: 1)")


def _add_engine(kinds: Any) -> None:
    engine = _kind(
        kinds, "engine", run_engine,
        help="what batches gain on a CPU or a GPU",
        description="In one process, without Ray: seconds of sound a second by tokens that go through a voice together, as in a "
        "job, and by users of the streaming engine, as in a server.",
        example="flowtts benchmark engine --device cuda --tokens 1000,4000,16000 --users 1,8,64 --frames 640,10000",
    )  # fmt: skip
    engine.add_argument(
        "--voice", default=FLOW_VOICE, help="a bundled voice's name or a voice folder (default: %(default)s)"
    )
    engine.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the voice runs (default: cpu)")
    engine.add_argument(
        "--texts", type=Path, help="one text a line, or TSV with a header (default: a chapter of Alice)"
    )
    engine.add_argument("--n", type=int, default=400, help="texts of a job, mixed in length (default: 400)")
    engine.add_argument("--tokens", default="250,1000,4000", help="tokens together in a job (default: 250,1000,4000)")
    engine.add_argument("--users", default="1,2,4,8,16", help="of the streaming engine (default: 1,2,4,8,16)")
    engine.add_argument("--frames", default="640", help="mel frames together in streams (default: 640)")
    engine.add_argument("--seconds", type=float, default=30.0, help="of each load of streams (default: 30)")
    engine.add_argument("--what", default="jobs,streams", help="of jobs,streams (default: both)")


def _add_serving(kinds: Any) -> None:
    serving = _kind(
        kinds, "serving", run_serving,
        help="how a server holds up under load",
        description="Start a server and load it: first sound, goodput, overload, killed replicas, memory.",
        example="flowtts benchmark serving --what first,goodput --seconds 30",
    )  # fmt: skip
    serving.add_argument("--url", help="of a server that runs (default: one of our own, for as long as it takes)")
    serving.add_argument("--what", default="first,goodput,overload,killed,memory", help="of %(default)s (default: all)")
    serving.add_argument("--seconds", type=float, default=60.0, help="of each load (default: 60)")
    serving.add_argument("--requests", type=int, default=2000, help="of the memory test (default: 2000)")


def _sayer(args: argparse.Namespace) -> Callable[[str], None]:
    """Return what prints a step to standard error. Raise OutputError first where the file of --json cannot be written."""
    from rich.console import Console

    if args.json:
        require_folder(args.json)
    console = Console(stderr=True)
    return lambda step: console.print(step, highlight=False, markup=False)


def _done(args: argparse.Namespace, figures: dict[str, Any]) -> int:
    if args.json:
        write_json(args.json, figures)
    return 0


def run_distances(args: argparse.Namespace) -> int:
    if args.draws < 2:
        raise ConfigError(f"--draws {args.draws}: a spread needs at least 2")
    from jobs.benchmarks import distances as benchmark_distances

    say = _sayer(args)
    figures = benchmark_distances.run(args.draws, args.output, say)
    say(f"written: {args.output}/distances.md")
    return _done(args, figures)


def run_judges(args: argparse.Namespace) -> int:
    from jobs.benchmarks import judges as benchmark_judges

    say = _sayer(args)
    figures = benchmark_judges.run(
        args.speech,
        args.speakers,
        args.output,
        args.n,
        workers=args.workers,
        keep=args.keep,
        progress=say,
    )
    page = args.output / "judges.md"
    print(page.read_text(encoding="utf-8"))
    say(f"written: {page}")
    return _done(args, figures)


def _numbers(option: str, given: str) -> list[int]:
    """Return the whole numbers from 1 of a list such as "1,2,4". Raise ConfigError for any other text."""
    try:
        numbers = [int(number) for number in given.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"{option} {given}: not whole numbers from 1", "write for instance 1,2")
    return numbers


def run_engine(args: argparse.Namespace) -> int:
    if args.n < 2 or args.seconds <= 0:
        raise ConfigError(f"--n {args.n} --seconds {args.seconds}: at least 2 texts, and some seconds")
    tokens, users = _numbers("--tokens", args.tokens), _numbers("--users", args.users)
    frames = _numbers("--frames", args.frames)
    from jobs.benchmarks import engine as benchmark_engine
    from jobs.benchmarks import scale as benchmark_scale
    from jobs.benchmarks import speed as benchmark_speed

    say = _sayer(args)
    texts = benchmark_scale.mixed([text for _, text in benchmark_speed.read_texts(args.texts)], args.n)
    figures = benchmark_engine.engine(
        args.voice, args.device, texts, args.what.split(","), tokens, users, frames, args.seconds, say
    )
    print(benchmark_engine.page(figures))
    return _done(args, figures)


def run_acoustic(args: argparse.Namespace) -> int:
    if min(args.steps, args.turns, args.threads) < 1:
        raise ConfigError(
            f"--steps {args.steps} --turns {args.turns} --threads {args.threads}", "give 1 or more of each"
        )
    from jobs.benchmarks import acoustic_against

    figures = acoustic_against.against(
        args.against.split(","), _sayer(args), args.size, args.steps, args.turns, args.threads
    )
    print(acoustic_against.page(figures))
    return _done(args, figures)


def run_evaluation(args: argparse.Namespace) -> int:
    from jobs.benchmarks import evaluation as benchmark_evaluation

    workers = _numbers("--workers", args.workers)
    judges = tuple(args.judges.split(","))
    figures = benchmark_evaluation.scaling(args.source, args.clips, workers, judges, _sayer(args))
    print(benchmark_evaluation.page(figures))
    return _done(args, figures)


def run_serving(args: argparse.Namespace) -> int:
    from jobs.benchmarks import serving as benchmark_serving

    figures = benchmark_serving.serving(args.url, args.what.split(","), args.seconds, args.requests, _sayer(args))
    print(benchmark_serving.page(figures))
    return _done(args, figures)


def run_voices(args: argparse.Namespace) -> int:
    from jobs.benchmarks import speed as benchmark_speed
    from jobs.benchmarks import voices as benchmark_voices

    say = _sayer(args)
    texts = benchmark_speed.read_texts(args.texts)[-args.n :]
    figures = benchmark_voices.voices(args.voices, texts, args.asr, say, args.language)
    print(benchmark_voices.page(figures))
    code = _done(args, figures)
    if args.write_cards:
        benchmark_voices.write_cards(figures)
    return code


def run_watermark(args: argparse.Namespace) -> int:
    if args.n < 1 or args.seconds <= 0:
        raise ConfigError(f"--n {args.n} --seconds {args.seconds}", "give 1 or more clips, of more than 0 seconds")
    from flowtts_core.watermark.card import bundled_mark
    from jobs.benchmarks import watermark as benchmark_watermark

    figures = benchmark_watermark.watermark(
        args.mark or bundled_mark(),
        args.clips,
        args.unmarked,
        _sayer(args),
        n=args.n,
        seconds=args.seconds,
        threshold=args.threshold,
        through=args.through,
    )
    print(benchmark_watermark.page(figures))
    return _done(args, figures)


def run_fakes(args: argparse.Namespace) -> int:
    from jobs.benchmarks import fakes as benchmark_fakes

    figures = benchmark_fakes.fakes(args.plan, _sayer(args), steps=args.steps, output=args.output)
    print(benchmark_fakes.page(figures))
    return _done(args, figures)


def run_vocoders(args: argparse.Namespace) -> int:
    steps = _numbers("--steps", args.steps) if args.steps else []
    if args.n < 1 or args.threads < 1:
        raise ConfigError(f"--n {args.n} --threads {args.threads}", "give 1 or more of each")
    if bool(args.vocoders) != bool(args.clips) or not (args.vocoders or args.against):
        raise ConfigError(
            "vocoders and recordings are needed", "--vocoder NAME=FOLDER and --clips FOLDER, or --against"
        )
    say = _sayer(args)
    figures: dict[str, Any] = {}
    if args.vocoders:
        figures = _measured_vocoders(args, steps, say)
    if args.against:
        from jobs.benchmarks import vocoders_against

        against = vocoders_against.against(args.against.split(","), say, args.threads)
        print(vocoders_against.page(against))
        figures = {**figures, "against": against} if figures else against
    return _done(args, figures)


def _measured_vocoders(args: argparse.Namespace, steps: list[int], say: Callable[[str], None]) -> dict[str, Any]:
    from jobs.benchmarks import vocoders as benchmark_vocoders
    from jobs.benchmarks import vocoders_page

    for place in (args.output and args.output / vocoders_page.PAGE, args.players):
        if place:
            require_folder(place)
    figures = benchmark_vocoders.vocoders(
        args.vocoders,
        args.clips,
        args.n,
        say,
        steps=steps,
        grids=args.grids.split(","),
        detector=args.pitch,
        workers=args.workers,
        keep=args.keep,
        players=args.players,
    )
    print(vocoders_page.page(figures))
    if args.output:
        written = vocoders_page.write(args.output, figures)
        say(f"written: {', '.join(map(str, written))}")
    return figures


def run_codecs(args: argparse.Namespace) -> int:
    from jobs.benchmarks import codecs as benchmark_codecs
    from jobs.benchmarks import codecs_page

    if args.n < 1:
        raise ConfigError(f"--n {args.n}", "give 1 or more")
    if not (args.codecs and (args.clips or args.probes)):
        raise ConfigError("codecs and recordings are needed", "--codec NAME=FOLDER and --clips FOLDER or --probes DATA")
    say = _sayer(args)
    if args.probes:
        return _probe(args, say)
    for place in (args.output and args.output / codecs_page.PAGE, args.players):
        if place:
            require_folder(place)
    plan = {"asr": args.asr, "workers": args.workers, "keep": args.keep, "players": args.players}
    figures = benchmark_codecs.codecs(args.codecs, args.clips, args.n, say, **plan)
    print(codecs_page.page(figures))
    if args.output:
        say(f"written: {codecs_page.write(args.output, figures)}")
    return _done(args, figures)


def _probe(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    from jobs.benchmarks import probes

    if args.clips or args.output or args.players:
        raise ConfigError("--probes makes a table of its own", "measure the copies of --clips by another command")
    figures = probes.probe(args.codecs, args.probes, args.probe_share, say)
    print(probes.page(figures))
    return _done(args, figures)


def run_training(args: argparse.Namespace) -> int:
    from jobs.benchmarks import training as benchmark_training
    from jobs.prepare import parse_settings
    from jobs.training.recipes import recipe

    chosen = recipe(args.recipe, {**parse_settings(args.settings), "trainer.steps": args.steps})
    figures = benchmark_training.compare(args.data, chosen, args.workers, args.every, args.keep, _sayer(args))
    print(benchmark_training.page(figures))
    return _done(args, figures)


def run_scale(args: argparse.Namespace) -> int:
    if args.rounds < 1 or args.n < 50 * args.rounds:
        raise ConfigError(f"--n {args.n} --rounds {args.rounds}: at least 50 texts for each round")
    workers = _numbers("--workers", args.workers)
    rows = _numbers("--null-rows", args.null_rows)
    from jobs.benchmarks import scale as benchmark_scale
    from jobs.benchmarks import speed as benchmark_speed

    say = _sayer(args)
    texts = benchmark_scale.mixed([text for _, text in benchmark_speed.read_texts(args.texts)], args.n)
    figures = benchmark_scale.scale(
        args.voice, texts, args.what.split(","), workers, rows, say, args.device, args.rounds
    )
    print(benchmark_scale.page(figures))
    return _done(args, figures)


def run(args: argparse.Namespace) -> int:
    what = args.what.split(",")
    if unknown := sorted(set(what) - set(PARTS)):
        raise ConfigError(f"--what {','.join(unknown)}: no such part", f"use some of: {','.join(PARTS)}")
    if args.n < 2 or args.ablation_n < 0:
        raise ConfigError(f"--n {args.n} --ablation-n {args.ablation_n}: at least 2 texts, and no negative number")
    from cluster.machine import Watch, describe
    from jobs.benchmarks import report as benchmark_report
    from jobs.benchmarks import speed as benchmark_speed

    if args.json:
        require_folder(args.json)
    figures: dict[str, Any] = {"benchmark": "synthesis", "machine": describe()}
    with Watch() as watch:
        texts = benchmark_speed.read_texts(args.texts)
        figures["texts"] = str(args.texts or "the demo chapter")
        if "speed" in what:  # before the benchmarks load the machine
            figures["speed"] = benchmark_speed.speed(args.voice, [text for _, text in texts])
        if "ready" in what:
            figures["ready"] = benchmark_speed.ready(args.voice)
        if "quality" in what:
            from jobs.benchmarks.quality import quality

            plan = {"n": args.n, "ablation_n": args.ablation_n, "teacher": args.teacher_audio or args.teacher}
            figures["quality"] = quality(args.voice, texts, workers=args.workers, **plan)
    figures["busy"] = watch.busy.to_json()
    figures["bars"] = benchmark_report.bars(figures)
    benchmark_report.show(figures)
    if args.json:
        write_json(args.json, figures)
    return 0


def require_folder(path: Path) -> None:
    """Make the file's folder. Raise OutputError where it cannot be written: now rather than after an hour."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another --json") from error


def write_json(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", "choose another --json") from error
