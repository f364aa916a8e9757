"""`flowtts vocode`: mel files, a prepared folder, or recordings (copy synthesis) to sound, by a vocoder."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import AudioError, ConfigError, FlowTTSError, OutputError, VoiceError
from jobs.corpus.source import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from torch import Tensor

    from flowtts_core.audio.mel import MelConfig
    from flowtts_core.vocoder.base import Vocoder

MEL_SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
SOME_FAILED = 3  # exit code
_TOLD = 10  # failures on the terminal; --json has them all


@dataclass(frozen=True)
class Source:
    """What one sound is made of: `name` is that of the file to write, without suffix, relative to the output folder."""

    name: str
    said: str
    read: Callable[[], Tensor]


@dataclass
class Made:
    """What became of the inputs: files that were there already are kept, each failure has its reason."""

    made: int = 0
    kept: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    wall_s: float = 0.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "vocode",
        help="turn mels into sound",
        description="Turn mel files into sound by a vocoder, and recordings into copies of themselves, by which a vocoder is"
        " judged. A mel must be the one that the vocoder reads, which is printed first: a file does not tell how its mel was"
        " made. Files hold one array each, [bands, frames] or [frames, bands]; long ones are made window by window. Sounds that"
        " are there already are kept, so that a run that was cut goes on.",
        epilog="exit codes: 0 all made, 3 some inputs failed, 1 all of them did, 2 wrong usage\n\nexamples:\n"
        "  flowtts vocode mels/ -o wavs/ --vocoder vocoders/mine          # .npy .npz .pt .safetensors\n"
        "  flowtts vocode data/ -o wavs/ --vocoder voices/mine            # of `flowtts prepare`\n"
        "  flowtts vocode --copy ljspeech/ -o copies/ --vocoder natural   # recordings through the vocoder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="MELS",
        help=f"mel files ({' '.join(MEL_SUFFIXES)}), recordings, folders of either, or a folder of `flowtts prepare`",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the sounds")
    parser.add_argument(
        "--vocoder",
        required=True,
        metavar="FOLDER|VOICE",
        help="a vocoder's folder, a voice's folder, a bundled voice's name, or griffin_lim",
    )
    parser.add_argument(
        "--copy", action="store_true", help="take the recordings of folders: make their mels, and sound of those"
    )
    parser.add_argument("--format", choices=("wav", "flac"), default="wav", help="of the sounds (default: wav)")
    parser.add_argument("--overwrite", action="store_true", help="make sounds again that are there")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: 1)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the vocoder runs (default: cpu)"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.threads < 1:
        raise ConfigError(f"--threads {args.threads}", "give 1 or more")
    if args.output.suffix.lower() in AUDIO_SUFFIXES and not args.output.is_dir():
        raise ConfigError(
            f"-o {args.output}: is the name of a sound; sounds are written into a folder, each under its mel's name",
            f"give a folder: -o {args.output.parent}",
        )
    import torch

    from cluster.machine import require_device
    from flowtts_core.audio.mel import MelConfig
    from flowtts_core.engines.vocoder_graphs import open_vocoder

    require_device(args.device)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        try:
            vocoder = open_vocoder(args.vocoder, _given_mel(args.inputs) or MelConfig(), args.threads).vocoder
        except VoiceError as error:
            if Path(args.vocoder).exists():
                raise
            raise ConfigError(f"--vocoder {args.vocoder}: {error.message}", error.remedy) from error
        if args.device != "cpu":
            vocoder.runners = {}
        vocoder = vocoder.to(args.device).eval()
        print(f"{args.vocoder} reads: {vocoder.features.said}", file=sys.stderr)
        sources = find_sources(args.inputs, vocoder.features, args.copy)
        made = vocode(sources, args.output, vocoder, args.format, overwrite=args.overwrite, quiet=args.json)
    finally:
        torch.set_num_threads(before)
    _tell(made, args, vocoder)
    if not made.failed:
        return 0
    return SOME_FAILED if made.made or made.kept else 1


def vocode(
    sources: Sequence[Source],
    output: Path,
    vocoder: Vocoder,
    format: str = "wav",
    *,
    overwrite: bool = False,
    quiet: bool = False,
) -> Made:
    """Write the sound of each source as `output/NAME.FORMAT`; one that cannot be made leaves its reason, and others go on.

    Raises:
        ConfigError: where a recording would be written over by its copy.
        OutputError: where a file cannot be written.
    """
    from jobs.bar import bar

    for source in sources:
        if (output / f"{source.name}.{format}").resolve() == Path(source.said).resolve():
            raise ConfigError(f"{source.said} would be written over", "give another -o")
    made, began = Made(), time.perf_counter()
    with bar(quiet=quiet) as shown:
        task = shown.add_task("sounds", total=len(sources))
        for source in sources:
            path = output / f"{source.name}.{format}"
            if path.exists() and not overwrite:
                made.kept += 1
            else:
                try:
                    made.seconds += write_sound(path, source.read(), vocoder)
                    made.made += 1
                except OutputError:
                    raise
                except FlowTTSError as error:
                    made.failed[source.said] = error.message
            shown.update(task, advance=1)
    made.wall_s = round(time.perf_counter() - began, 2)
    return made


def write_sound(path: Path, mel: Tensor, vocoder: Vocoder) -> float:
    """Write the sound of a mel [M, T] as it is made, whole or not at all; returns its seconds.

    Raises:
        AudioError: for sound that is not finite, or a mel without any.
        OutputError: where the file cannot be written.
    """
    import soundfile

    from flowtts_core.audio.files import to_int16
    from flowtts_core.files import whole_file
    from flowtts_core.vocoder.windows import sound_in_windows

    rate, samples = vocoder.features.sample_rate, vocoder.features.samples_of(mel.shape[1])
    if not samples:
        raise AudioError(f"{path.stem}: {mel.shape[1]} frames make no sound", "leave it out")
    try:
        with (
            whole_file(path, durable=False) as temporary,
            soundfile.SoundFile(temporary, "w", rate, 1, "PCM_16", format=path.suffix[1:].upper()) as file,
        ):
            for waveform in sound_in_windows(vocoder, mel):
                if not bool(waveform.isfinite().all()):
                    raise AudioError(
                        f"{path.stem}: the vocoder made sound that is not finite", "was its mel made alike?"
                    )
                file.write(to_int16(waveform.cpu().numpy()))
    except (OSError, soundfile.LibsndfileError) as error:
        raise OutputError(f"{path}: cannot be written ({error})", "give another -o") from error
    return samples / rate


def find_sources(inputs: Sequence[Path], mel: MelConfig, copy: bool) -> list[Source]:
    """Return what lies at the inputs, in the order of the names.

    Raises:
        ConfigError: where there is nothing, or two would be written to one file.
        FlowTTSError: for a prepared folder without this mel.
    """
    sources: list[Source] = []
    for place in inputs:
        if _is_prepared(place):
            sources += _of_prepared(place, mel)
        elif place.is_dir():
            sources += _of_folder(place, mel, copy)
        elif not place.exists():
            raise ConfigError(f"{place}: no such file or folder", "check the path")
        else:
            sources.append(_of_file(place, Path(place.name), mel))
    names: dict[str, str] = {}
    for source in sources:
        if source.name in names:
            raise ConfigError(
                f"{source.said} and {names[source.name]} would both be written to {source.name}", "give them one by one"
            )
        names[source.name] = source.said
    return sources


def _of_folder(folder: Path, mel: MelConfig, copy: bool) -> list[Source]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sounds = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    mels = [path for path in files if path.suffix.lower() in MEL_SUFFIXES]
    taken = sounds if copy or not mels else mels
    if not taken:
        wanted = "recordings" if copy else f"mels ({' '.join(MEL_SUFFIXES)}) or recordings"
        raise ConfigError(f"{folder}: no {wanted}", "check the path")
    if len(left := sounds if taken is mels else []):
        print(f"{folder}: {len(left)} recordings beside {len(mels)} mels left out; --copy takes them", file=sys.stderr)
    return [_of_file(path, path.relative_to(folder), mel) for path in taken]


def _of_file(path: Path, name: Path, mel: MelConfig) -> Source:
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return Source(name.with_suffix("").as_posix(), str(path), lambda: copied_mel(path, mel))
    if suffix in MEL_SUFFIXES:
        from flowtts_core.audio.mel_files import read_mel

        return Source(name.with_suffix("").as_posix(), str(path), lambda: read_mel(path, mel))
    raise ConfigError(f"{path}: neither a mel nor a recording", f"give {' '.join((*MEL_SUFFIXES, *AUDIO_SUFFIXES))}")


def copied_mel(path: Path, mel: MelConfig) -> Tensor:
    """Return the mel [M, T] of a recording.

    Raises:
        AudioError: for a file that cannot be read.
    """
    import torch

    from flowtts_core.audio.files import read_audio
    from flowtts_core.audio.mel import LogMel

    waveform, _ = read_audio(path, mel.sample_rate)
    if len(waveform) < mel.hop_length:
        raise AudioError(f"{path}: {len(waveform)} samples are less than a frame", "leave it out")
    with torch.inference_mode():
        made: Tensor = LogMel(mel)(torch.from_numpy(waveform)[None])[0]
    return made


def _is_prepared(place: Path) -> bool:
    return (place / "dataset.json").is_file()


def _given_mel(inputs: Sequence[Path]) -> MelConfig | None:
    """Return the mel of the first prepared folder, which Griffin-Lim then reads."""
    from flowtts_core.training.examples import DatasetMeta

    return next((DatasetMeta.load(place).mel for place in inputs if _is_prepared(place)), None)


def _of_prepared(folder: Path, mel: MelConfig) -> list[Source]:
    import torch

    from flowtts_core.config import to_dict
    from flowtts_core.training.example_files import Index
    from flowtts_core.training.examples import Examples
    from flowtts_core.training.features import mel_set
    from flowtts_core.training.files import files_of

    examples = Examples(folder, ["mel"], mel=to_dict(mel))

    def reader(place: int) -> Callable[[], Tensor]:
        return lambda: torch.from_numpy(examples.mel(place).copy())

    files = files_of(folder)
    ids, whole = examples.ids(files), len(Index.read(files, mel_set(mel).folder).lengths)
    if whole > len(ids):
        print(f"{folder}: {whole - len(ids)} clips whose tokens do not fit their mel left out", file=sys.stderr)
    return [Source(name.replace("/", "_"), f"{folder}: {name}", reader(place)) for place, name in enumerate(ids)]


def _tell(made: Made, args: argparse.Namespace, vocoder: Vocoder) -> None:
    from flowtts_core.config import to_dict

    if args.json:
        about = {"vocoder": args.vocoder, "mel": to_dict(vocoder.features), "output": str(args.output)}
        print(json.dumps(about | asdict(made)))
        return
    for said, reason in list(made.failed.items())[:_TOLD]:
        print(f"failed: {reason if said in reason else f'{said}: {reason}'}", file=sys.stderr)
    if len(made.failed) > _TOLD:
        print(f"... and {len(made.failed) - _TOLD} more; --json has them all", file=sys.stderr)
    speed = f", {made.seconds:.1f} s of sound in {made.wall_s:.1f} s" if made.made else ""
    kept = f", {made.kept} were there already, by whichever vocoder (--overwrite makes them again)" if made.kept else ""
    failed = f", {len(made.failed)} failed" if made.failed else ""
    print(f"{args.output}: {made.made} sounds{speed}{kept}{failed}")
