"""`flowtts codec encode|decode|info`: sound to the codes of a codec, and back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from flowtts_core.codec.files import LoadedCodec
    from flowtts_core.codec.tokens import Tokens

SOME_SET_ASIDE = 3  # exit code


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "codec",
        help="turn sound into codes, and back",
        description="Turn a sound into the codes of a codec (small whole numbers, some for each frame), and codes into sound."
        " A codec is a folder that `flowtts train` or `flowtts import` made. Codes keep the fingerprint of their codec, and"
        " no other decodes them.",
        epilog="examples:\n"
        "  flowtts codec encode a.wav -o a.npz --codec codecs/mine\n"
        "  flowtts codec encode a.wav -o a.npz --codec codecs/encodec --kbps 6\n"
        "  flowtts codec decode a.npz -o copy.wav --codec codecs/mine\n"
        "  flowtts codec encode speech/ more.parquet -o tokens/ --codec codecs/mine   # goes on where it was interrupted\n"
        "  flowtts codec decode tokens/ -o copies/ --codec codecs/mine\n"
        "  flowtts verify tokens/\n"
        "  flowtts codec info codecs/mine",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    encode = _verb(verbs, "encode", "turn sounds into codes")
    encode.add_argument(
        "inputs",
        nargs="+",
        help="a sound of at most an hour; or sounds, folders, globs, s3:// places, Parquet with audio, tars",
    )
    encode.add_argument(
        "-o", "--output", required=True, help="an .npz file for one sound; a folder or s3:// place for many"
    )
    rate = encode.add_mutually_exclusive_group()
    rate.add_argument("--codebooks", type=int, metavar="N", help="use the first N codebooks (default: all)")
    rate.add_argument("--kbps", type=float, metavar="RATE", help="use as many as RATE kbit/s allow")
    encode.add_argument("--sounds-per-file", type=int, default=256, help="bound of each Parquet file (default: 256)")
    encode.add_argument(
        "--webdataset", action="store_true", help="of many sounds also write tars of KEY.codes.npy and KEY.json"
    )
    encode.add_argument("--overwrite", action="store_true", help="replace codes that stand there of other sounds")
    decode = _verb(verbs, "decode", "turn codes into sounds")
    decode.add_argument("input", help="an .npz file of codes, or a folder or s3:// place of them")
    decode.add_argument(
        "-o", "--output", required=True, help="the sound: .wav .flac .mp3 .ogg .opus; or a folder of many"
    )
    decode.add_argument("--format", default="flac", choices=("flac", "wav"), help="of many sounds (default: flac)")
    decode.add_argument(
        "--lost",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="of one sound by a causal codec: lose so many frames, as a network does, and conceal them (default: 0)",
    )
    for verb in (encode, decode):
        verb.add_argument("--codec", type=Path, required=True, metavar="FOLDER", help="the codec's folder")
        verb.add_argument("--threads", type=int, default=1, help="for one sound: of the processor (default: 1)")
        verb.add_argument("--workers", type=int, help="for many sounds: processes (default: the cores of this machine)")
        verb.add_argument("--address", help="for many sounds: a Ray cluster (default: this machine)")
    info = _verb(verbs, "info", "tell what a codec is, or what made a file of codes")
    info.add_argument("input", type=Path, help="a codec's folder, or an .npz file of codes")


def run(args: argparse.Namespace) -> int:
    return {"encode": _encode, "decode": _decode, "info": _info}[args.verb](args)


def _verb(verbs: Any, name: str, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)
    return parser


def _encode(args: argparse.Namespace) -> int:
    from flowtts_core.audio.files import read_channels
    from flowtts_core.codec.tokens import LONGEST_S, books_of, tokens_of, write_tokens

    loaded = _loaded(args)
    codec = loaded.codec
    books = books_of(codec, args.codebooks, args.kbps)
    if not args.output.endswith(".npz"):
        return _encode_corpus(args, books)
    if len(args.inputs) > 1:
        raise ConfigError(f"-o {args.output}: an .npz file has the codes of one sound", "give a folder for several")
    sound = read_channels(args.inputs[0], codec.channels, codec.sample_rate, longest_s=LONGEST_S)
    tokens, output = tokens_of(loaded, sound, books), Path(args.output)
    _written(output, lambda: write_tokens(output, tokens))
    note, codes = tokens.note, tokens.encoded.codes
    summary = {
        "file": str(args.output),
        "codec": note.codec,
        "seconds": note.samples / note.sample_rate,
        "frames": codes.shape[-1],
        "codebooks": codes.shape[1],
        "frame_rate": note.frame_rate,
        "kbps": note.bits_per_second / 1000,
        "loudness_lufs": note.loudness_lufs,
    }
    return _told(
        args,
        summary,
        f"{args.output}: {codes.shape[-1]} frames of {codes.shape[1]} code(s) for {summary['seconds']:.2f} s,"
        f" {note.frame_rate:g} frames a second, {summary['kbps']:g} kbit/s",
    )


def _encode_corpus(args: argparse.Namespace, books: int | None) -> int:
    from dataclasses import asdict

    from jobs.codecs.corpus import QUARANTINE, encode_corpus

    if args.sounds_per_file < 1 or (args.workers is not None and args.workers < 1):
        raise ConfigError("--workers and --sounds-per-file must be 1 or more")
    with _progress("coding sounds", args.json) as report:
        made = encode_corpus(
            args.inputs,
            args.output,
            args.codec,
            books,
            workers=args.workers,
            address=args.address,
            sounds_per_file=args.sounds_per_file,
            webdataset=args.webdataset,
            overwrite=args.overwrite,
            report=report,
        )
    aside = f"; {made.failed} set aside: {QUARANTINE} says why" if made.failed else ""
    _told(
        args,
        asdict(made),
        f"{made.output}: {made.sounds} sounds, {made.hours:.2f} h, {made.frames} frames at {made.kbps:g} kbit/s,"
        f" in {made.wall_s:.0f} s{aside}",
    )
    return SOME_SET_ASIDE if made.failed else 0


@contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    from jobs.bar import bar

    with bar(quiet=quiet) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _decode(args: argparse.Namespace) -> int:
    from flowtts_core.audio.files import require_known, write_audio
    from flowtts_core.codec.tokens import read_tokens, require_codec, sound_of

    if not 0 <= args.lost < 100:
        raise ConfigError(f"--lost {args.lost:g}", "give a percentage, from 0 to below 100")
    if not args.input.endswith(".npz"):
        if args.lost:
            raise ConfigError("--lost is for one .npz file", "leave it out")
        return _decode_corpus(args)
    output = Path(args.output)
    require_known(output.suffix)
    tokens, loaded = read_tokens(Path(args.input)), _loaded(args)
    require_codec(loaded, tokens)
    if args.lost:
        tokens = _with_losses(loaded, tokens, args.lost / 100)
    sound = sound_of(loaded, tokens)
    rate = loaded.codec.sample_rate
    _written(output, lambda: write_audio(output, sound[0] if len(sound) == 1 else sound.T, rate))
    summary = {"file": str(output), "seconds": sound.shape[-1] / rate, "sample_rate": rate}
    return _told(args, summary, f"{output}: {summary['seconds']:.2f} s at {rate} Hz")


def _with_losses(loaded: LoadedCodec, tokens: Tokens, share: float) -> Tokens:
    from dataclasses import replace

    import torch

    from flowtts_core.codec.loss import lose

    if not loaded.codec.causal:
        raise ConfigError(
            "--lost: this codec codes whole sounds only, and does not conceal losses", "use a causal codec"
        )
    codes = lose(tokens.encoded.codes, share, torch.Generator().manual_seed(0))  # the same frames each time
    return replace(tokens, encoded=replace(tokens.encoded, codes=codes))


def _decode_corpus(args: argparse.Namespace) -> int:
    from jobs.codecs.corpus import decode_corpus

    with _progress("decoding", args.json) as report:
        count = decode_corpus(
            args.input,
            args.output,
            args.codec,
            suffix=f".{args.format}",
            workers=args.workers,
            address=args.address,
            report=report,
        )
    return _told(args, {"output": args.output, "sounds": count}, f"{args.output}: {count} sounds")


def _info(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from flowtts_core.codec.files import load_codec
    from flowtts_core.codec.tokens import read_tokens

    if args.input.suffix == ".npz":
        tokens = read_tokens(args.input)
        note, shape = tokens.note, tokens.encoded.codes.shape
        said = (
            f"{args.input}: {shape[-1]} frames of {shape[1]} code(s) of the codec {note.codec}, {note.frame_rate:g} a"
            f" second, {note.bits_per_second / 1000:g} kbit/s, {note.samples / note.sample_rate:.2f} s"
        )
        return _told(args, {**asdict(note), "frames": shape[-1], "codebooks": shape[1]}, said)
    loaded = load_codec(args.input)
    codec = loaded.codec
    usable = [codec.bits_per_second(books) for books in range(codec.least_books, codec.books + 1)]
    summary = {
        "codec": str(args.input),
        "name": loaded.spec["name"],
        "fingerprint": loaded.fingerprint,
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "frame_rate": codec.frame_rate,
        "codebooks": list(codec.sizes),
        "kbps": [rate / 1000 for rate in usable],
        "latency_ms": 1000 * codec.latency_s if codec.causal else None,
        "parameters": sum(weight.numel() for weight in codec.parameters()),
        "licence": loaded.card.get("licence", ""),
        "source": loaded.card.get("source", ""),
    }
    waits = f"streams after {summary['latency_ms']:.0f} ms" if codec.causal else "codes whole sounds"
    rate = f"{usable[-1] / 1000:g}" if len(usable) == 1 else f"{usable[0] / 1000:g} to {usable[-1] / 1000:g}"
    return _told(
        args,
        summary,
        f"{args.input}: {summary['name']} {loaded.fingerprint}, {codec.sample_rate} Hz, {codec.channels} channel(s)\n"
        f"{codec.frame_rate:g} frames a second, {codec.books} codebook(s) of {codec.sizes[0]}, {rate} kbit/s\n"
        f"{summary['parameters'] / 1e6:.1f} M parameters, {waits}",
    )


def _loaded(args: argparse.Namespace) -> LoadedCodec:
    import torch

    from flowtts_core.codec.files import load_codec

    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads}", "give 1 or more")
    torch.set_num_threads(args.threads)
    return load_codec(args.codec)


def _written(path: Path, write: Any) -> None:
    try:
        write()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "choose another -o") from error


def _told(args: argparse.Namespace, summary: dict[str, Any], said: str) -> int:
    print(json.dumps(summary) if args.json else said)
    return 0
