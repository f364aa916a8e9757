"""Vocoders side by side on held-out recordings: what judges hear of copies of them, what they cost, and flows by their steps."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.machine import Watch, describe, installed
from flowtts_core.audio.files import read_audio, write_audio
from flowtts_core.audio.mel import LogMel, MelConfig
from flowtts_core.config import build, fingerprint, spec_of, to_dict
from flowtts_core.errors import AudioError, ConfigError
from flowtts_core.files import write_whole
from flowtts_core.metrics import bootstrap
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig
from flowtts_core.metrics.parallel import parallel_starmap
from flowtts_core.vocoder import VOCODERS, GriffinLimConfig, Vocoder
from flowtts_core.vocoder.windows import sound_in_windows
from flowtts_core.voice.parts import GRIFFIN_LIM, find_vocoder
from jobs.bar import bar
from jobs.benchmarks.judges import CLEAN, FEWEST, Measured, set_difference
from jobs.benchmarks.vocoders_speed import costs
from jobs.corpus.source import AUDIO_SUFFIXES

RECORDINGS = "recordings"
PANEL = PanelConfig(("opinions", "naturalness", "copy", "pesq"))
METRICS = {  # name -> whether higher is better
    "pesq": True, "stoi": True, "naturalness": True, "mos_p808": True, "mel_l1": False, "stft": False, "periodicity": False,
    "voicing": False, "f0_cents": False, "secs": True, "wer": False,
}  # fmt: skip
OF_RECORDINGS = ("naturalness", "mos_p808")  # figures that a recording has without a copy
COMPARED = ("pesq", "stoi", "naturalness")  # with Griffin-Lim, clip by clip
SPEED_S = 4.0  # of the mel that speeds are measured on
STRAIGHT_S = 2.0  # of the mels on which a grid of equal straightness is measured
STRAIGHT_CLIPS = 4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recording:
    """A held-out clip: the folder it came from (its set), its file, and a name that no other has."""

    set: str
    path: Path
    key: str


@dataclass(frozen=True)
class System:
    """A vocoder to measure.

    Attributes:
        key: of its spec and weights: what is kept of it is of these alone.
        flow: the vocoder whose flow it is with other steps; "" for one as it is.
        steps, grid: of its flow; 0 and "" for others.
    """

    name: str
    vocoder: Vocoder
    key: str
    flow: str = ""
    steps: int = 0
    grid: str = ""


def find_recordings(folders: Sequence[Path], n: int) -> list[Recording]:
    """Return n clips of each folder, evenly over its files in the order of their names.

    Raises:
        ConfigError: for a folder without any, or two of one name.
    """
    found: list[Recording] = []
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise ConfigError(f"--clips: two folders are named {max(names, key=names.count)}", "rename one of them")
    for folder, name in zip(folders, names, strict=True):
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
        if not files:
            raise ConfigError(f"--clips {folder}: no recordings", f"give a folder of {' '.join(AUDIO_SUFFIXES)}")
        for place in np.unique(np.linspace(0, len(files) - 1, min(n, len(files))).round().astype(int)):
            path = files[place]
            key = fingerprint([name, path.relative_to(folder).as_posix(), path.stat().st_size], 12)
            found.append(Recording(name, path, key))
    return found


def open_systems(named: Sequence[str]) -> list[System]:
    """Open `NAME=FOLDER|VOICE` each, and a Griffin-Lim for each definition of bands among them.

    Raises:
        ConfigError: for another form, or two of one name.
        VoiceError: for what is no vocoder.
    """
    systems: list[System] = []
    for one in named:
        name, equals, place = one.partition("=")
        if not equals or not name or not place:
            raise ConfigError(f"--vocoder {one}", "give a name and a place: --vocoder mine=vocoders/mine")
        if name in (RECORDINGS, *(system.name for system in systems)):
            raise ConfigError(f"--vocoder {one}: that name is taken", "give another")
        systems.append(_system(name, find_vocoder(place, MelConfig()).vocoder.eval()))
    if not systems:
        raise ConfigError("no vocoder to measure", "give one or more: --vocoder mine=vocoders/mine")
    readers: dict[MelConfig, str] = {}
    for system in systems:
        readers.setdefault(replace(system.vocoder.features, pitch=False), system.name)
    for mel, reader in readers.items():
        spec = spec_of(GRIFFIN_LIM, GriffinLimConfig(mel=mel))
        systems.append(
            _system("Griffin-Lim" if len(readers) < 2 else f"Griffin-Lim, mel of {reader}", build(VOCODERS, spec))
        )
    return systems


def _system(name: str, vocoder: Vocoder, **more: Any) -> System:
    config: Any = vocoder.config
    digest = hashlib.sha256(fingerprint([type(vocoder).__name__, to_dict(config)]).encode())
    for tensor in vocoder.state_dict().values():
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    vocoder.runners = {}
    return System(name, vocoder, digest.hexdigest()[:16], **more)


def flows_of(
    systems: Sequence[System], steps: Sequence[int], grids: Sequence[str], recordings: Sequence[Recording], say: Say
) -> list[System]:
    """Return each flow vocoder with each number of steps on each grid, by the weights that it has.

    A grid of equal straightness is measured on the vocoder itself, on a few of the recordings.

    Raises:
        ConfigError: where none is a flow, or for an unknown grid.
    """
    made: list[System] = []
    for system in systems:
        config: Any = getattr(system.vocoder, "config", None)
        if not (isinstance(getattr(config, "steps", None), int) and hasattr(config, "grid")):
            continue
        for grid in grids:
            spec = _grid_of(system, grid, recordings, say)
            if spec is None:
                continue
            for count in steps:
                changed = replace(config, steps=count, grid=spec)
                vocoder: Vocoder = type(system.vocoder)(changed)  # type: ignore[call-arg]  # each takes its own config
                vocoder.load_state_dict(system.vocoder.state_dict())
                name = f"{system.name}, {count} step{'s' * (count > 1)}, {grid}"
                own = {"flow": system.name, "steps": count, "grid": grid}
                made.append(_system(name, vocoder.eval(), **own))
    if not made:
        raise ConfigError(
            "--steps: none of the vocoders is a flow of one number of steps", "give a WaveFM or an RFWave"
        )
    return made


def _grid_of(system: System, grid: str, recordings: Sequence[Recording], say: Say) -> dict[str, Any] | None:
    from flowtts_core.flow import TIME_GRIDS

    if grid != "straightness":
        build(TIME_GRIDS, {"name": grid})  # an unknown name lists the known ones
        return {"name": grid}
    measure = getattr(system.vocoder, "straightness", None)
    if measure is None:
        say(f"{system.name}: has no measure of its paths' straightness; left out of that grid")
        return None
    say(f"how straight the paths of {system.name} are")
    mel = system.vocoder.features
    frames = round(STRAIGHT_S * mel.sample_rate / mel.hop_length)
    mels = [copied_mel(one.path, mel) for one in recordings]
    mels = [own[:, :frames] for own in mels if own.shape[1] >= frames][:STRAIGHT_CLIPS]
    if not mels:
        raise ConfigError(
            f"no recording lasts {STRAIGHT_S:g} s, on which straightness is measured", "give longer clips"
        )
    return spec_of("straightness", measure(torch.stack(mels)))


@lru_cache(maxsize=8)
def _log_mel(mel: MelConfig) -> LogMel:
    return LogMel(mel)


def copied_mel(path: Path, mel: MelConfig) -> Tensor:
    """Return the mel [M, T] of a recording."""
    waveform, _ = read_audio(path, mel.sample_rate)
    with torch.inference_mode():
        made: Tensor = _log_mel(mel)(torch.from_numpy(waveform)[None])[0]
    return made.clone()


def make_copies(systems: Sequence[System], recordings: Sequence[Recording], keep: Path) -> None:
    """Write what each system makes of each recording's mel, unless it is there."""
    todo = [(s, r) for s in systems for r in recordings if not sound_path(keep, s.key, r).exists()]
    with bar() as shown:
        task = shown.add_task("copies", total=len(todo))
        for system, recording in todo:
            mel = copied_mel(recording.path, system.vocoder.features)
            waveform = torch.cat(list(sound_in_windows(system.vocoder, mel))).numpy()
            if not np.isfinite(waveform).all():
                raise AudioError(f"{system.name} makes sound of {recording.path} that is not finite", "train it again")
            write_audio(sound_path(keep, system.key, recording), waveform, system.vocoder.features.sample_rate)
            shown.update(task, advance=1)


def sound_path(keep: Path, key: str, recording: Recording) -> Path:
    """Return where a copy lies; the recordings' own sound stays where it is."""
    return recording.path if key == RECORDINGS else keep / key / f"{recording.key}.flac"


def judge(
    sound: str, recording: str, detector: str, kept: str, panel: PanelConfig = PANEL, text: str | None = None
) -> dict[str, Any]:
    """Return a copy's figures by metric, the reasons for those it has not, and its mel statistics; kept in a file.

    A recording is judged alone.

    Args:
        text: what it should say, where the panel recognises words.
    """
    from flowtts_core.metrics import shape
    from flowtts_core.metrics.periodicity import periodicity_error

    place = Path(kept)
    if place.exists():
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        return found
    (waveform, rate), (theirs, their_rate) = read_audio(sound), read_audio(recording)
    alone = sound == recording
    clip = Clip(waveform, rate, text=text, reference=None if alone else theirs, reference_rate=their_rate)
    verdict = _panel(panel).judge(clip)
    values = {name: value[0] / value[1] for name, value in verdict.values.items() if name in METRICS and value[1]}
    reasons = dict(verdict.reasons)
    if not alone:
        try:
            error = periodicity_error(waveform, rate, theirs, their_rate, detector)
        except AudioError as failed:
            reasons["periodicity"] = failed.message
        else:
            values |= {"periodicity": error.periodicity, "voicing": error.voicing}
            values |= {} if error.cents is None else {"f0_cents": error.cents}
    made = {"values": values, "reasons": reasons, "mel": shape.mel_statistics(waveform, rate).tolist()}
    made |= {} if verdict.heard is None else {"heard": verdict.heard}
    write_whole(place, json.dumps(made).encode())
    return made


@lru_cache(maxsize=1)
def _panel(config: PanelConfig) -> Panel:
    return Panel(config)


def judged(
    systems: Sequence[System], recordings: Sequence[Recording], keep: Path, detector: str, workers: int | None
) -> dict[str, list[dict[str, Any]]]:
    """Return by system, and for the recordings themselves, what was measured of each clip, in their order."""
    keys = {RECORDINGS: RECORDINGS, **{system.name: system.key for system in systems}}
    todo = [
        (str(sound_path(keep, key, one)), str(one.path), detector, str(keep / f"{detector}-{key}" / f"{one.key}.json"))
        for key in keys.values()
        for one in recordings
    ]
    found = iter(parallel_starmap(judge, todo, workers))
    return {name: [next(found) for _ in recordings] for name in keys}


def summary(
    rows: dict[str, list[dict[str, Any]]], places: Sequence[int], floors: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Return each system's figures over some clips: means, and their differences to Griffin-Lim and to the recordings in pairs.

    Args:
        places: of the clips.
        floors: system -> the Griffin-Lim of the same bands.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, every in rows.items():
        own = [every[place]["values"] for place in places]
        figures: dict[str, Any] = {}
        for metric in METRICS if name != RECORDINGS else OF_RECORDINGS:
            values = [one[metric] for one in own if metric in one]
            figures[metric] = bootstrap.mean(values).to_json() if values else None
        reasons = [reason for place in places for reason in every[place]["reasons"].values()]
        against = {"over_recordings": (RECORDINGS, OF_RECORDINGS), "over_griffin_lim": (floors.get(name, ""), COMPARED)}
        for title, (other, metrics) in against.items():
            if name != RECORDINGS and other in rows and other != name:
                figures[title] = {m: _difference(every, rows[other], places, m) for m in metrics}
        figures["kad"] = None if name == RECORDINGS else _kad(every, rows[RECORDINGS], places)
        found[name] = {**figures, "n": len(places), "reasons": sorted(set(reasons))}
    return found


def _difference(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], places: Sequence[int], metric: str
) -> dict[str, float] | None:
    pairs = [(ours[place]["values"].get(metric), theirs[place]["values"].get(metric)) for place in places]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    return bootstrap.mean_difference(*zip(*both, strict=True)).to_json() if both else None  # type: ignore[arg-type]


def _kad(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], places: Sequence[int]
) -> dict[str, float] | None:
    """Return by how much the copies are further from recordings of other texts than the recordings themselves are."""
    if len(places) < FEWEST:
        return None
    nobody = np.zeros(1)
    clips = [
        {name: Measured({}, np.array(rows[place]["mel"]), nobody) for name, rows in (("copy", ours), (CLEAN, theirs))}
        for place in places
    ]
    return set_difference(clips, "copy", "kad_mel").to_json()


def vocoders(
    named: Sequence[str],
    folders: Sequence[Path],
    n: int,
    say: Say,
    *,
    steps: Sequence[int] = (),
    grids: Sequence[str] = ("uniform",),
    detector: str = "swift_f0",
    workers: int | None = None,
    keep: Path | None = None,
    players: Path | None = None,
) -> dict[str, Any]:
    """Measure vocoders by their copies of held-out recordings; with `steps`, flows by their number of steps too.

    Args:
        n: clips of each folder.
        keep: sounds and figures of each clip stay here, and a cut run goes on.
        players: the HTML page to write.

    Raises:
        ConfigError: for too few clips, and as `open_systems`, `find_recordings` and `flows_of`.
    """
    systems, recordings = open_systems(named), find_recordings(folders, n)
    if len(recordings) < 2:
        raise ConfigError(f"{len(recordings)} clips have no spread", "give 2 or more")
    floors = _floors(systems)
    flows = flows_of(systems, steps, grids, recordings, say) if steps else []
    every = [*systems, *flows]
    with Watch() as watch, nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory() as place:
        mels = {s.name: _for_speed(s, recordings) for s in every}
        speed = costs({s.name: s.vocoder for s in every}, mels, say)
        say(f"{len(recordings)} recordings through {len(every)} vocoders")
        make_copies(every, recordings, Path(place))
        say("judging")
        rows = judged(every, recordings, Path(place), detector, workers)
        floors |= {s.name: floors[s.flow] for s in flows}
        figures = {
            "benchmark": "vocoders",
            "detector": detector,
            "systems": [_facts(s) | speed[s.name] for s in every],
            "sets": {name: summary(rows, places, floors) for name, places in sets_of(recordings).items()},
            "clips": [{"set": one.set, "file": one.path.name} for one in recordings],
            "rows": {name: [one["values"] for one in own] for name, own in rows.items()},
        }
        if players is not None:
            from jobs.benchmarks.vocoders_page import write_players

            keys = {RECORDINGS: RECORDINGS, **{s.name: s.key for s in systems}}
            sounds = [{name: sound_path(Path(place), key, one) for name, key in keys.items()} for one in recordings]
            write_players(players, figures, sounds)
    packages = ("speechmos", "distillmos", "pystoi", "pesq", "swift-f0", "torchcrepe", "torch", "onnxruntime")
    versions = {name: installed(name) for name in packages}
    return {**figures, "machine": describe(), "versions": versions, "busy": watch.busy.to_json()}


def sets_of(recordings: Sequence[Recording]) -> dict[str, list[int]]:
    """Return the places of the clips of each folder; before them, of several, those of all."""
    sets: dict[str, list[int]] = {}
    for place, one in enumerate(recordings):
        sets.setdefault(one.set, []).append(place)
    return sets if len(sets) < 2 else {"all clips": list(range(len(recordings))), **sets}


def _floors(systems: Sequence[System]) -> dict[str, str]:
    """Return the Griffin-Lim of each system's bands."""
    floors = {s.vocoder.features: s.name for s in systems if isinstance(s.vocoder, VOCODERS[GRIFFIN_LIM][1])}
    return {s.name: floors[replace(s.vocoder.features, pitch=False)] for s in systems}


def _facts(system: System) -> dict[str, Any]:
    config: Any = getattr(system.vocoder, "config", None)
    steps = getattr(config, "steps", None)
    return {
        "name": system.name,
        "flow": system.flow,
        "steps": system.steps,
        "grid": system.grid,
        "kind": type(system.vocoder).__name__,
        "own_steps": steps if isinstance(steps, int) else None,
        "mel": system.vocoder.features.said,
    }


def _for_speed(system: System, recordings: Sequence[Recording]) -> Tensor:
    """Return SPEED_S of the recordings' mels, one after the other."""
    mel, parts, frames = system.vocoder.features, list[Tensor](), 0
    wanted = round(SPEED_S * mel.sample_rate / mel.hop_length)
    for one in recordings:
        if frames < wanted:
            parts.append(copied_mel(one.path, mel))
            frames += parts[-1].shape[1]
    return torch.cat(parts, 1)[:, :wanted]
