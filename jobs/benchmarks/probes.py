"""How apart the codes of a factorised codec are: what linear probes read of each attribute, in clips they did not learn of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster.machine import Watch, describe
from flowtts_core.codec.factorised import ATTRIBUTES, SPEAKER, FactorisedCodec, require_factorised
from flowtts_core.codec.files import load_codec
from flowtts_core.errors import ConfigError
from flowtts_core.metrics.probes import Read, read_class, read_number
from flowtts_core.training.examples import Examples
from flowtts_core.training.factors import SILENCE, UNKNOWN, ClipLabels, open_labels

CLIPS = 200  # from which probes learn, at most
TIMBRE = "timbre"
_STRETCH_S = 1.0  # of which speakers are told by the mean of a stretch's codes

Say = Callable[[str], None]


def probe(
    named: Sequence[str], data: Path, share: float, say: Say, *, aligner: str | None = None, clips: int = CLIPS
) -> dict[str, Any]:
    """Probe codecs on a prepared corpus of several speakers, whose mels have pitch.

    Args:
        named: `NAME=FOLDER` each.
        share: of the clips that are held out; that of a training on this corpus names the same clips as it.
        aligner: the voice by which phones are aligned; None: the bundled one.

    Raises:
        ConfigError: for another form, a codec whose codes are not apart, and too few clips or speakers.
    """
    codecs = {}
    for one in named:
        name, equals, folder = one.partition("=")
        if not (name and equals and folder):
            raise ConfigError(f"--codec {one}", "give a name and a place: --codec mine=codecs/mine")
        codecs[name] = require_factorised(load_codec(Path(folder)).codec, "be probed")
    examples = Examples(data, ["mel", "audio", "text"], mel={"pitch": True}, validation=share)
    if examples.held_out is None or len(examples.meta.speakers) < 2:
        raise ConfigError(
            f"{data}: {len(examples)} clips of {len(examples.meta.speakers)} speakers, none held out",
            "give 20 clips or more of several speakers, and a share above 0",
        )
    labels = open_labels(examples, aligner)
    rows = []
    with Watch() as watch:
        for name, codec in codecs.items():
            say(f"probing {name}")
            learnt = _collected(codec, labels, clips)
            tried = _collected(codec, labels.over(examples.held_out), clips)
            rows.append({"name": name, **_read(learnt, tried)})
    return {
        "benchmark": "probes",
        "speakers": len(examples.meta.speakers),
        "learnt_of": min(clips, len(examples)),
        "tried_on": len(examples.held_out),
        "codecs": rows,
        "machine": describe(),
        "busy": watch.busy.to_json(),
    }


def _collected(codec: FactorisedCodec, labels: ClipLabels, clips: int) -> dict[str, Tensor]:
    """Return vectors of frames, of stretches and of clips, and what is known of each."""
    examples = labels.examples
    found: dict[str, list[Tensor]] = {}
    # evenly over the corpus, whose clips may stand by speaker
    for clip in np.unique(np.linspace(0, len(examples) - 1, min(clips, len(examples))).round().astype(int)):
        for name, values in _of_clip(codec, labels, int(clip)).items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


@torch.inference_mode()
def _of_clip(codec: FactorisedCodec, labels: ClipLabels, clip: int) -> dict[str, Tensor]:
    examples, mel = labels.examples, labels.examples.meta.mel
    if mel.sample_rate != codec.sample_rate:
        raise ConfigError(
            f"the corpus has {mel.sample_rate} Hz, the codec {codec.sample_rate}", "prepare it with --resample"
        )
    sound = torch.from_numpy(examples.audio(clip, 0, int(examples.frames[clip]) * mel.hop_length))
    encoded = codec.encode(sound[None])
    frames = encoded.codes.shape[-1]
    times = (np.arange(frames) + 0.5) * codec.hop_length / codec.sample_rate
    phones, f0 = (torch.from_numpy(read(clip, times)) for read in (labels.phones, labels.f0))
    heard = (phones != SILENCE) & (phones != UNKNOWN)
    speaker = torch.tensor([int(examples.speaker_ids[clip])])
    stretch = round(_STRETCH_S * codec.frame_rate)
    made = {"phones": phones[heard], "f0": f0[heard], "speaker": speaker, TIMBRE: encoded.side[SPEAKER]}
    made["stretch speaker"] = speaker.expand(max(1, frames // stretch))
    for name, values in codec.attributes(encoded.codes).items():
        own = values[0].T
        made[name] = own[heard]
        made[f"stretch {name}"] = torch.stack(
            [part.mean(0) for part in own.split(stretch)][: max(1, frames // stretch)]
        )
    return {name: values.clone() for name, values in made.items()}


def _read(learnt: dict[str, Tensor], tried: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    def classes(vectors: str, wanted: str) -> Read:
        return read_class(learnt[vectors], learnt[wanted], tried[vectors], tried[wanted])

    rows = {}
    for name in ATTRIBUTES:
        rows[name] = {
            "phones": vars(classes(name, "phones")),
            "speaker": vars(classes(f"stretch {name}", "stretch speaker")),
            "f0": vars(read_number(learnt[name], learnt["f0"], tried[name], tried["f0"])),
        }
    rows[TIMBRE] = {"speaker": vars(classes(TIMBRE, "speaker"))}
    return rows


def page(figures: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [
        f"Linear probes learnt of {figures['learnt_of']} clips and tried on {figures['tried_on']} others,"
        f" {figures['speakers']} speakers. In parentheses: chance.",
        "",
    ]
    for row in figures["codecs"]:
        lines += [f"| {row['name']} | phones | speaker | F0 (R2) |", "|---|---|---|---|"]
        for name in (*ATTRIBUTES, TIMBRE):
            own = row[name]
            cells = [_share(own[what]) if what in own else "" for what in ("phones", "speaker")]
            cells.append(f"{own['f0']['value']:.2f}" if "f0" in own else "")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _share(read: dict[str, Any]) -> str:
    return f"{read['value']:.0%} ({read['chance']:.0%})"
