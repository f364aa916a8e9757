"""A voice's card: what the voice is, where it lies, and its fingerprint; read without loading torch."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from flowtts_core.config import fingerprint, from_dict, to_dict
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.sampling import Sampling

CARD = "voice.json"
_OLD_TINY_CARD = "tiny.json"  # of format 1
FORMAT = 2
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_VOICE = "heart"
FLOW_VOICE = "natural"  # the bundled voice whose parts are ours: acoustic model and vocoder
FLITE = "flite:"  # begins the names of voices that a program on this machine speaks
PACKAGES = ("hibari",)  # whose files a card may point at: to find a package is to import it, which runs its code
_TIMED = ("matcha",)  # acoustic models that decide how long each token lasts
_NOTES = ("name", "description", "licence", "source", "scores", "format")  # change nothing of the sound


@dataclass(frozen=True)
class VoiceCard:
    """What a voice is; `voice.json`.

    Attributes:
        kind: of engine, by which `flowtts_core.voice.open_voice` opens it.
        parts: name -> spec, as `flowtts_core.config.build` takes it: "acoustic", "vocoder" and "frontend" of a flow voice.
        sampling: defaults of the flow.
        languages: that it speaks, as `en-us`.
        speakers: names of the speakers of a model with several, in the order of its embedding.
        prompt: whether requests bring a clip to imitate: "none", "optional" or "required".
        phonemes: that a request may name by number, of a voice that speaks those alone.
        licence, source: of the weights, and of the speech they were trained on.
        scores: what was measured of it (name -> number or text), with the command in `scores["command"]`.
        sha256: of each file of weights.
    """

    name: str
    kind: str = "flow"
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    sample_rate: int = 22050
    languages: tuple[str, ...] = ("en-us",)
    speakers: tuple[str, ...] = ()
    prompt: str = "none"
    phonemes: tuple[str, ...] = ()
    description: str = ""
    licence: str = ""
    source: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """Equal for voices that make the same sound. Fields at their defaults are left out: a new one changes no voice."""
        values = _changed(self)
        return fingerprint({name: value for name, value in values.items() if name not in _NOTES}, 16)

    @property
    def figures(self) -> dict[str, Any]:
        """What was measured of the voice alone (naturalness, wer, ...: each with its interval), by either benchmark."""
        systems = self.scores.get("systems")
        rows = [row for row in systems if isinstance(row, dict)] if isinstance(systems, list) else []
        own: dict[str, Any] = next((row for row in rows if row.get("system") == "voice"), {})
        return {**own, **self.scores.get("voices", {})}

    @property
    def naturalness(self) -> float | None:
        """How natural it sounds, from 1 to 5; None where that was not measured."""
        found = self.figures.get("naturalness")
        return None if found is None else float(found["value"])

    @property
    def word_times(self) -> str:
        """Where the times of words come from.

        "model": from the voice's own durations; "aligned": from a search in its sound, of English texts alone (see
        `flowtts_core.engines.forced_alignment`); "none".
        """
        graph = self.parts.get("graph")
        if self.kind == "flite" or (graph is not None and not graph.get("durations")):
            return "aligned" if any(is_english(language) for language in self.languages) else "none"
        timed = graph is not None or self.parts.get("acoustic", {}).get("name") in _TIMED
        return "model" if timed else "none"

    def size_bytes(self, folder: Path) -> int:
        """Return the bytes of its files; of a file that an installed package brings, too."""
        graph = self.parts.get("graph", {})
        if package := graph.get("package"):
            return packaged_file(package, graph["file"]).stat().st_size
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def is_english(language: str) -> bool:
    """Whether a language, as `en-us`, is English."""
    return language.lower().partition("-")[0] == "en"


def packaged_file(package: str, file: str) -> Path:
    """Return the path of a file that an installed package brings.

    Raises:
        VoiceError: for a package that is missing, or that cards may not point at.
    """
    if package not in PACKAGES:
        raise VoiceError(
            f"package {package!r}: a voice may point at {', '.join(PACKAGES)} alone", "do not trust its card"
        )
    try:
        return Path(str(importlib.resources.files(package) / file))
    except ImportError as error:
        raise VoiceError(f"package {package} is not installed", f"pip install {package}-tts") from error


def _changed(config: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults, as JSON values; of nested ones too."""
    found: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value != default:
            found[f.name] = _changed(value) if isinstance(value, Sampling) else value
    return found


def bundled_voices() -> dict[str, Path]:
    """Return the voices that come with the package: name -> folder."""
    return {card.parent.name: card.parent for card in sorted(BUNDLED.glob(f"*/{CARD}"))}


def own_voices_folder() -> Path:
    """Return the folder of the voices that this user has saved by name; it need not exist yet."""
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "flowtts" / "voices"


def own_voices() -> dict[str, Path]:
    """Return the voices that this user has saved: name -> folder."""
    return {card.parent.name: card.parent for card in sorted(own_voices_folder().glob(f"*/{CARD}"))}


def find_voice(voice: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a bundled or saved voice, a path, an `s3://` or `hf://` place (copied here once), or `flite:VOICE`.

    Args:
        voice: None is the default voice.

    Raises:
        VoiceError: where there is none; lists the bundled names.
    """
    bundled = bundled_voices()
    name = DEFAULT_VOICE if voice is None else os.fspath(voice)
    if name in bundled:
        return bundled[name]
    if name.startswith("hf://"):
        from flowtts_core.voice.hub import fetched

        return fetched(name)
    if "://" in name:
        return _fetched(name.rstrip("/"))
    if name.startswith(FLITE):
        return _of_flite(name)
    if any((Path(name) / card).is_file() for card in (CARD, _OLD_TINY_CARD)):
        return Path(name)
    if (own_voices_folder() / name / CARD).is_file() and "/" not in name:
        return own_voices_folder() / name
    what = f"{name}: no {CARD} in that folder" if Path(name).is_dir() else f"no voice {name!r}"
    own, speaker = split_speaker(name)
    if speaker is not None and (own in bundled or (Path(own or "") / CARD).is_file()):
        raise VoiceError(what, f"name its speaker apart: --voice {own} --speaker {speaker}")
    saved = f"; or of those saved here: {', '.join(own_voices())}" if own_voices() else ""
    raise VoiceError(
        what, f"give a voice's folder or one of the bundled voices: {', '.join(bundled) or '(none)'}{saved}"
    )


def require_flow(voice: str | os.PathLike[str], what: str) -> VoiceCard:
    """Return a voice's card; raises ConfigError, saying that it cannot be `what` ("exported"), unless it is a flow voice."""
    card = load_card(voice)
    if card.kind != "flow":
        raise ConfigError(f"voice {card.name} is of kind {card.kind}", f"only flow voices can be {what}")
    return card


def split_speaker(voice: str | None) -> tuple[str | None, str | None]:
    """Return voice and speaker of `VOICE[@SPEAKER]`; None for what is not named."""
    name, at, speaker = (voice or "").rpartition("@")
    if not at or "/" in speaker:  # a folder's name may have such a sign too
        return voice or None, None
    return name or None, speaker or None


def cache_folder(name: str) -> Path:
    """Return the folder of this user for what can be made or fetched again; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "flowtts" / name


def found_anywhere(voice: str) -> bool:
    """Whether each machine finds the voice by this name, and need not share a folder."""
    return "://" in voice or voice.startswith(FLITE)


def _of_flite(name: str) -> Path:
    """A folder with the card of a voice of the program flite."""
    from flowtts_core.engines.flite import flite_card

    card = flite_card(name)
    folder = cache_folder("voices") / name.replace(":", "-")
    try:
        if not (folder / CARD).is_file() or replace(load_card(folder), scores={}) != card:
            folder.mkdir(parents=True, exist_ok=True)
            write_card(folder, card)
    except OSError as error:
        raise VoiceError(f"{folder}: cannot be written ({error.strerror or error})", "set XDG_CACHE_HOME") from error
    return folder


def _fetched(place: str) -> Path:
    """A local copy of a voice in an object store; another card there makes another copy."""
    import fsspec

    try:
        store, path = fsspec.url_to_fs(place)
        card = store.cat_file(f"{path}/{CARD}")
        folder = cache_folder("voices") / hashlib.sha256(place.encode() + card).hexdigest()[:24]
        if not (folder / CARD).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as partial:
                for name in store.ls(path, detail=False):
                    own = name.rstrip("/").rsplit("/", 1)[-1]
                    if own != CARD and store.isfile(name):
                        store.get_file(name, f"{partial}/{own}")
                        os.replace(f"{partial}/{own}", folder / own)
            write_whole(folder / CARD, card)  # last: a folder without it is no voice
    except Exception as error:  # each store has errors of its own
        raise VoiceError(
            f"{place}: no voice can be copied from there ({error})", "check the place, endpoint and keys"
        ) from error
    return folder


def load_card(voice: str | os.PathLike[str] | None = None) -> VoiceCard:
    """Return the card alone, without weights.

    Raises:
        VoiceError: when it is damaged or of a format that this version does not know.
    """
    folder = find_voice(voice)
    path = folder / CARD if (folder / CARD).is_file() else folder / _OLD_TINY_CARD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") not in (1, FORMAT):
            raise VoiceError(
                f"{path}: format {values.get('format')!r}, this version reads 1 to {FORMAT}", "update flowtts"
            )
        card: VoiceCard = from_dict(VoiceCard, _of_format_1(values) if values["format"] == 1 else values)
    except (OSError, ValueError, AttributeError, KeyError, TypeError, ConfigError) as error:
        raise VoiceError(
            f"{path}: not a voice card ({error})", "write the voice again, or take it from a backup"
        ) from error
    return card


def _of_format_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """A card of the first format, which knew flow voices on phonemes and tiny voices, as one of the second."""
    if values.get("kind") == "tiny":
        model = values["model"]
        sampling = {"steps": values["steps"], "temperature": 1.0}
        given = {name: values[name] for name in ("licence", "source", "scores", "kind")}
        known = {
            "sample_rate": model["sample_rate"],
            "phonemes": model["phonemes"],
            "languages": [],
            "sampling": sampling,
        }
        parts, sha256 = {"model": {"name": "tiny", **model}}, {"tiny.safetensors": values["sha256"]}
        return {"name": "tiny", **given, **known, "parts": parts, "sha256": sha256, "format": FORMAT}
    values = {name: value for name, value in values.items() if name != "mel_fingerprint"}
    vocoder = {name: v for name, v in values.pop("vocoder").items() if (name, v) != ("adanorm_num_embeddings", None)}
    frontend = {"name": "phonemes", **values.pop("frontend")}
    parts = {"acoustic": values.pop("acoustic"), "vocoder": vocoder, "frontend": frontend}
    sampling = {name: values.pop(name) for name in ("steps", "temperature", "speed") if name in values}
    languages = [values.pop("language", "en-us")]
    return {**values, "parts": parts, "sampling": sampling, "languages": languages, "format": FORMAT}


def write_card(folder: Path, card: VoiceCard) -> None:
    """Replace a folder's card atomically (also to add scores)."""
    text = json.dumps(to_dict(card), indent=1, ensure_ascii=False) + "\n"
    write_whole(folder / CARD, text.encode())
