"""`flowtts evaluate`: scores every clip of a folder, and the folder against a reference or another run."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from flowtts_core.errors import ConfigError

EPILOG = """\
GENERATED and --reference are each one of: what `flowtts synthesize` wrote (its manifest tells the texts), a folder in
LJSpeech's form, a folder of audio files (texts in FILE.txt beside them, or LibriSpeech's .trans.txt), or Parquet with a
column of audio (and id, text, compute_s, latency_s); local or s3://. Clips of equal id are compared one to one; all clips
of both as distributions.

judges (--judges): words (WER, CER; need texts), opinions (DNSMOS), naturalness (DistillMOS), speaker (similarity),
shape (length, silence, clipping, embeddings), speed (RTF, latency) are asked by default; warp (cepstra, pitch), copy
(spectra, SI-SDR, STOI) and pesq compare with the reference's clip of the same id; series adds distances over time and
each clip's own FAD; watermark looks for the mark that tells synthetic sound (public, and of --watermark-key), and whether it
says the number that the manifest, or --watermark-number, names; synthetic gives the probability, of each clip and each
second, that speech is synthetic: a hint, which is often wrong on engines that its net never heard.

models, KIND or KIND:FOLDER_OR_NAME (of a model hub):
  --asr      pocketsphinx, whisper:openai/whisper-small, faster-whisper:FOLDER, ctc:facebook/hubert-large-ls960-ft
  --speaker  resemblyzer, xvector:microsoft/wavlm-base-plus-sv, onnx:ecapa.onnx
  --mos      dnsmos, utmos:FILE.pt
  --embedder clap:laion/larger_clap_general, wavlm:FOLDER, whisper:FOLDER, encodec:facebook/encodec_24khz

examples:
  flowtts evaluate audiobook/                                  are the words understood, does it sound clean
  flowtts evaluate speech/ --reference ljspeech/               and how far is it from real speech
  flowtts evaluate speech/ --require 'wer<0.3' --require 'mos_overall>3'    exit code 4 when it is not
  flowtts evaluate new/ -o new-scores --against old-scores     is it better than what was judged before
  flowtts evaluate s3://speech/a -o s3://scores/a --device cuda --asr whisper:openai/whisper-large-v3

exit codes: 0 judged, and all requirements met; 2 a setting or a choice of clips that cannot be judged; 3 a judge could not
judge some clips (unreadable, too long or too short, silent, ...); 4 a requirement is not met."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="score what was made",
        description="Judge every clip (words, sound, speaker, shape) and write one page, tables and an exit code.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("generated", metavar="GENERATED", help="the clips to judge")
    parser.add_argument("--reference", metavar="REF", help="clips to hold them against")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the results (default: GENERATED-evaluation)")
    parser.add_argument(
        "--require", action="append", default=[], metavar="'M<X'", help="a bound that must hold; may be given again"
    )
    parser.add_argument(
        "--against", action="append", default=[], metavar="DIR", help="results of another run to compare with, in pairs"
    )
    parser.add_argument("--limit", type=int, help="judge the first so many clips only, by id")
    parser.add_argument(
        "--max-minutes",
        type=float,
        default=60.0,
        metavar="N",
        help="set longer clips aside unread, since a clip is judged whole in memory (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    _add_judges(parser.add_argument_group("who judges"))
    _add_distances(parser.add_argument_group("distances of distributions, with --reference"))
    _add_running(parser.add_argument_group("how it runs"))
    parser.set_defaults(run=run)


def _add_judges(group: Any) -> None:
    group.add_argument("--judges", "--metrics", metavar="A,B", help="judges, or metrics, which choose their judges")
    group.add_argument(
        "--asr", default="pocketsphinx", metavar="MODEL", help="what transcribes (default: pocketsphinx)"
    )
    group.add_argument(
        "--language",
        default="en",
        help="that is spoken, as Whisper names it; en and de are compared with numbers written out, ja by its readings"
        " (default: en)",
    )
    group.add_argument(
        "--speaker", default="resemblyzer", metavar="MODEL", help="what knows voices (default: resemblyzer)"
    )
    group.add_argument("--mos", default="dnsmos", metavar="MODEL", help="what predicts opinions (default: dnsmos)")
    group.add_argument(
        "--embedder", action="append", default=[], metavar="MODEL", help="for distances, beside the log-mel; repeatable"
    )
    group.add_argument(
        "--si-sdr-rate",
        type=int,
        metavar="HZ",
        help="resample both clips to this rate for SI-SDR, as 16000 (default: the judged clip's own)",
    )
    group.add_argument(
        "--watermark-number",
        type=int,
        metavar="N",
        help="the number that all watermarks should say (default: what the manifest says of each clip)",
    )
    group.add_argument(
        "--watermark-key",
        metavar="FILE",
        help="a file of secret bytes: marks of this key are looked for beside public ones (default: FLOWTTS_WATERMARK_KEY, or"
        " none)",
    )
    group.add_argument(
        "--target-speaker",
        metavar="FILE",
        help="a clip of whom all should sound like, in place of the reference's clips",
    )


def _add_distances(group: Any) -> None:
    group.add_argument("--kernel", default="gaussian", help="of KAD: gaussian, iq, imq, or cubic, (1 + <x, y>)^3")
    group.add_argument(
        "--bandwidth-from",
        default="reference",
        help="whose median distance is the bandwidth: reference, as the paper has it, or evaluated, as the authors' toolkit",
    )
    group.add_argument("--bandwidth", type=float, metavar="X", help="a bandwidth of your own")
    group.add_argument(
        "--kad-scale", type=float, default=1, metavar="N", help="show KAD times 100, as tables do (default: 1)"
    )


def _add_running(group: Any) -> None:
    group.add_argument("--workers", type=int, help="judging processes (default: one per core)")
    group.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the models run (default: cpu)")
    group.add_argument("--address", help="of a Ray cluster (default: a private one on this machine)")
    group.add_argument("--overwrite", action="store_true", help="judge anew what another evaluation left in the folder")


def run(args: argparse.Namespace) -> int:
    from cluster.machine import describe
    from cluster.storage import Storage
    from jobs.bar import bar
    from jobs.evaluation import run as job
    from jobs.evaluation.output import write_outputs
    from jobs.evaluation.result import compare, load

    options = _options(args)
    requirements = [job.requirement_of(text, options.panel) for text in args.require]
    others = [(folder, load(folder, options.distance)) for folder in args.against]
    output = args.output or f"{args.generated.rstrip('/').removesuffix('.parquet')}-evaluation"
    try:
        with bar(quiet=args.no_progress or args.json) as shown:
            task = shown.add_task("judging clips", total=None)

            def tell(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total)

            found = job.evaluate(args.generated, args.reference, output, options, tell)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    held = [(requirement, requirement.met(found.value(requirement.metric))) for requirement in requirements]
    compared = [(folder, other, compare(found, other)) for folder, other in others]
    summary = write_outputs(Storage(output), found, held, compared, describe())
    if args.json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    else:
        _print(summary, output)
    if not all(met for _, met in held):
        return job.EXIT_BELOW
    return job.EXIT_FAILED if found.failed or found.in_part else 0


def _options(args: argparse.Namespace) -> Any:
    from flowtts_core.metrics.judges import PanelConfig
    from flowtts_core.metrics.kad import Kernel
    from jobs.evaluation.distances import DistanceConfig
    from jobs.evaluation.run import EvaluationOptions, chosen_judges

    panel = PanelConfig(
        **({"judges": chosen_judges([name.strip() for name in args.judges.split(",")])} if args.judges else {}),
        asr=args.asr,
        language=args.language,
        speaker=args.speaker,
        mos=args.mos,
        embedders=tuple(args.embedder),
        target=args.target_speaker,
        device=args.device,
        si_sdr_rate=args.si_sdr_rate,
    )
    kernel = Kernel(args.kernel, args.bandwidth, args.bandwidth_from)
    distance = DistanceConfig(kernel, args.kad_scale)
    gpus = float(args.device == "cuda")
    return EvaluationOptions(
        panel,
        distance,
        args.limit,
        args.workers,
        args.address,
        gpus,
        args.overwrite,
        args.max_minutes,
        args.watermark_number,
        _watermark_key(args.watermark_key, "watermark" in panel.judges),
    )


def _watermark_key(path: str | None, asked: bool) -> bytes:
    """Return the key whose marks the judge looks for; that of the environment is nobody's fault where it is not asked."""
    from flowtts_core.watermark.marking import read_key

    if asked:
        return read_key(path, "--watermark-key")
    if path is not None:
        raise ConfigError("nobody is asked for the watermark of a key", "add watermark to --judges")
    return b""


def _print(summary: dict[str, Any], output: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from jobs.evaluation.figures import shown

    table = Table("metric", "value", "95 % interval", "unit", "clips", "failed")
    for name, score in summary["scores"].items():
        low, high = shown(score["low"]), shown(score["high"])
        table.add_row(
            name, shown(score["value"]), f"{low} to {high}", score["unit"], str(score["n"]), str(score["failed"])
        )
    for name, found in summary["distances"].items():
        line = "" if found["at_infinity"] is None else f"{shown(found['at_infinity'])} at infinity"
        table.add_row(name, shown(found["value"]), line, found["unit"], f"{found['n']}/{found['n_reference']}")
    console = Console()
    console.print(table)
    for name, found in summary["distances"].items():
        if found.get("why"):
            console.print(f"{name} is not measured: {found['why']}", highlight=False, markup=False)
    if summary["unpaired"]:
        console.print(f"{summary['unpaired']} clips have no clip of the same id in the reference", highlight=False)
    for folder, tests in summary["differences"].items():
        for test in tests.values():
            where = f"{test['value']:+.3g} ({shown(test['low'])} to {shown(test['high'])}), p {test['p']:.2g}"
            console.print(
                f"{test['metric']} against {folder}: {where}: {test['verdict']}", highlight=False, markup=False
            )
    for folder, names in summary["not_compared"].items():
        console.print(
            f"not compared with {folder}, where other models judged or at other rates: {', '.join(names)}",
            highlight=False,
            markup=False,
        )
    for requirement in summary["requirements"]:
        console.print(f"{requirement['required']}: {'met' if requirement['met'] else 'NOT MET'}", highlight=False)
    if summary["failed"]:
        console.print(f"{summary['failed']} of {summary['clips']} clips could not be judged:", highlight=False)
        for reason, count in summary["reasons"].items():
            console.print(f"  {count} x {reason}", highlight=False, markup=False)
    for judge, count in summary["in_part"].items():
        console.print(
            f"{count} of {summary['clips']} clips could not be judged by {judge} (why: the page)", highlight=False
        )
    console.print(f"page: {output}/report.html", highlight=False, markup=False)
