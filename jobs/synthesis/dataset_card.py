"""The `README.md` of an output: a dataset card, as model hubs read it, that says what the speech is and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from flowtts_core.errors import ConfigError
from jobs.synthesis.audiofolder import SCHEMA as FILE_SCHEMA
from jobs.synthesis.dataset_snippets import SNIPPETS
from jobs.synthesis.units import SHARD_SCHEMA
from jobs.synthesis.webdataset import sample_schema

CARD = "README.md"

_DATA = {
    "files": ["audio/*.flac", "audio/metadata.jsonl"],
    "parquet": "shards/*.parquet",
    "webdataset": "webdataset/*.tar",
}
_OPTIONS: dict[str, dict[str, Any]] = {  # where the hub's loaders find the data
    "files": {"drop_labels": True},
    "parquet": {"filters": [[["status", "==", "ok"]]]},  # leaves out the tars of rows that were set aside
    "webdataset": {},
}
_KNOWN_LICENCES = """apache-2.0 mit bsd bsd-2-clause bsd-3-clause cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
cc-by-nc-4.0 cc-by-nc-sa-4.0 cc-by-nc-nd-4.0 cc-by-nd-4.0 gpl-3.0 lgpl-3.0 agpl-3.0 mpl-2.0 openrail odc-by
cdla-permissive-2.0""".split()
_SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
_SIZES += [(10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B")]
_UNSAID = "its card does not say"


@dataclass(frozen=True)
class VoiceFacts:
    """A voice of the data set. `source` is its training data and teacher, as its card says."""

    name: str
    fingerprint: str
    licence: str = ""
    source: str = ""
    language: str = ""


@dataclass(frozen=True)
class CardFacts:
    """The contents of a dataset card.

    Attributes:
        form: where the audio lies: "files", "parquet" or "webdataset".
        job: its id, as in the column `job` of each row.
        program: name and version of what made it.
        rows: the spoken rows; `failed` others were set aside for their `reasons` (reason -> rows).
        seconds: seconds of audio.
        settings: the settings that change the sound, as in the job's identity.
        texts: digest of the texts.
        scores: means of the gate's scores over the rows; empty without a gate.
        unverified: rows that failed the gate in all takes; of `spoken_again` rows a later take was kept.
        signer: by whom its provenance is signed; empty where it is not.
        schema: the columns of the shards.
    """

    title: str
    form: str
    job: str
    program: str
    voices: tuple[VoiceFacts, ...]
    rows: int
    seconds: float
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    texts: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    unverified: int = 0
    spoken_again: int = 0
    signer: str = ""
    schema: pa.Schema = SHARD_SCHEMA

    def __post_init__(self) -> None:
        if self.form not in _DATA:
            raise ConfigError(f"unknown form {self.form!r} of an output", f"use one of {', '.join(_DATA)}")


def render_card(facts: CardFacts) -> str:
    """Return the card: a YAML header, then Markdown. The same facts give the same text."""
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True, width=120)
    parts = [
        f"# {_line(facts.title) or 'Synthetic speech'}",
        f"{facts.rows:,} utterances, {facts.seconds / 3600:.2f} hours of **synthetic speech**: no person said these words. "
        f"Made by {_line(facts.program)} from texts, with {_voices(facts.voices)}.",
        "## How it was made",
        *(_voice(voice) for voice in facts.voices),
        _settings(facts),
        "## What is in it",
        _statistics(facts),
        _set_aside(facts),
        "## How to load it",
        SNIPPETS[facts.form],
        "## Licence",
        _licence(facts),
        "## Known limits",
        _limits(facts),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: CardFacts) -> dict[str, Any]:
    data: dict[str, Any] = {"config_name": "default", "data_files": [{"split": "train", "path": _DATA[facts.form]}]}
    languages = sorted({voice.language.partition("-")[0].lower() for voice in facts.voices if voice.language})
    return {
        "pretty_name": _plain(facts.title) or "Synthetic speech",
        **_licence_tags(facts.voices),
        **({"language": languages} if languages else {}),
        "task_categories": ["text-to-speech"],
        "size_categories": [next((size for most, size in _SIZES if facts.rows < most), "n>1T")],
        "annotations_creators": ["machine-generated"],
        "tags": ["synthetic", "speech", "flowtts"],
        "configs": [{**data, **_OPTIONS[facts.form]}],
        "dataset_info": {"features": _columns(facts)},
    }


def _licence_tags(voices: tuple[VoiceFacts, ...]) -> dict[str, Any]:
    """Return the hub's names of the voices' licences: "other" for one it does not know, "unknown" for none."""
    told = sorted({voice.licence.strip() for voice in voices})
    if not all(told):
        return {"license": "unknown"}
    if any(licence.lower() not in _KNOWN_LICENCES for licence in told):
        return {"license": "other", "license_name": "; ".join(map(_plain, told))}
    names = [licence.lower() for licence in told]
    return {"license": names[0] if len(names) == 1 else names}


def _columns(facts: CardFacts) -> list[dict[str, Any]]:
    """Return the columns in the hub's notation."""
    audio = {"dtype": "audio"}
    if facts.form == "webdataset":
        described = pa.struct(list(sample_schema(facts.scores)))
        keys = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
        return [{"name": "flac", **audio}, {"name": "json", **_feature(described)}, *keys]
    if facts.form == "files":
        return [{"name": "audio", **audio}, *_features(FILE_SCHEMA)]
    return [{"name": f.name, **(audio if f.name == "flac" else _feature(f.type))} for f in facts.schema]


def _features(fields: Any) -> list[dict[str, Any]]:
    return [{"name": field.name, **_feature(field.type)} for field in fields]


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": _features(kind)}
    if pa.types.is_list(kind):
        inner = kind.value_type
        return {"list": _features(inner) if pa.types.is_struct(inner) else _feature(inner)["dtype"]}
    return {"dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind))}


def _voices(voices: tuple[VoiceFacts, ...]) -> str:
    names = ", ".join(_line(voice.name) for voice in voices)
    return f"the voice {names}" if len(voices) == 1 else f"{len(voices)} voices: {names}"


def _voice(voice: VoiceFacts) -> str:
    lines = [
        f"- **Voice {_line(voice.name)}**",
        f"- Trained on: {_line(voice.source) or _UNSAID}",
        f"- Licence of the voice: {_line(voice.licence) or _UNSAID}",
        f"- Fingerprint of the model: `{voice.fingerprint}`, in the column `model` of each row",
    ]
    return "\n".join(lines)


def _settings(facts: CardFacts) -> str:
    settings = {"program": facts.program, "job": facts.job, "digest of the texts": facts.texts, **facts.settings}
    settings.setdefault("watermark", "none: it was left out")
    told = [(name, value) for name, value in settings.items() if value not in (None, "")]
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in told]
    text = "Each row has its own `seed`: the same text, voice, seed and settings give the same speech again.\n\n"
    text += (
        "`provenance.json` says all this for programs, with the recordings that were imitated and who agreed, and the"
    )
    text += " SHA-256 of the manifest, which has that of each sound."
    text += f" `provenance.json.c2pa` holds the signature of {_line(facts.signer)}." if facts.signer else ""
    return "\n".join(["| setting | value |", "|---|---|", *rows, "", text])


def _statistics(facts: CardFacts) -> str:
    mean = facts.seconds / facts.rows if facts.rows else 0.0
    rows = [
        ("utterances", f"{facts.rows:,}"),
        ("hours", f"{facts.seconds / 3600:.3f}"),
        ("seconds for each utterance, pauses between them included", f"{mean:.2f}"),
        ("voices", str(len(facts.voices))),
        ("set aside", f"{facts.failed:,}"),
        *([("short of the gate in all takes", f"{facts.unverified:,}")] if facts.scores else []),
        *([("kept in a later take", f"{facts.spoken_again:,}")] if facts.scores else []),
        *((f"{name}, on average", f"{value:.4g}") for name, value in facts.scores.items()),
    ]
    return "\n".join(
        ["| what | figure |", "|---|---|", *(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)]
    )


def _set_aside(facts: CardFacts) -> str:
    if not facts.failed:
        return ""
    lines = [f"- {count:,}: {_line(reason)}" for reason, count in facts.reasons.items()]
    return "\n".join(["Set aside, and listed in `quarantine.jsonl`:", "", *lines])


def _licence(facts: CardFacts) -> str:
    told = sorted({_line(voice.licence) for voice in facts.voices if voice.licence})
    voices = f"of the voices ({', '.join(told)})" if told else "of the voices, which their cards do not state"
    return (
        f"The licence in the header is that {voices}. The texts keep their own, which the program does not know: "
        "whoever publishes this names it here.\n\n"
        "This speech is synthetic: say so where it is heard, and do not pass it off as a person's."
    )


def _limits(facts: CardFacts) -> str:
    judged = (
        "- The scores are those of the job's gate, by automatic judges; none of it was listened to by people."
        if facts.scores
        else "- Nothing was checked by listening, neither by programs nor by people: `flowtts evaluate` scores it."
    )
    return "\n".join(
        [
            judged,
            "- Numbers, names and abbreviations are read as the text front end took them, which may be wrong; see `phonemes`.",
            "- Word times are those that the model spoke by, or what a program found in the sound: `flowtts voices` says which.",
            "- A voice reads everything in much the same manner: what is trained on it will sound no more varied than that.",
        ]
    )


def _plain(text: str) -> str:
    return " ".join(text.split())


def _line(text: str) -> str:
    """Return foreign text on one line, with the characters escaped that Markdown or HTML would interpret."""
    text = _plain(text)
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), ("[", "\\["), ("`", "\\`"), ("|", "\\|")):
        text = text.replace(mark, written)
    return text


def _cell(value: Any) -> str:
    return _line(in_words(value))


def in_words(value: Any) -> str:
    """Return a setting as readable text. Empty members of a group are left out."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {in_words(inner)}" for name, inner in value.items() if inner not in (None, ""))
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    return json.dumps(value, ensure_ascii=False, default=str)
