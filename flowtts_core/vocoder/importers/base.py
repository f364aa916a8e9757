"""What importing a vocoder of any kind begins and ends with: its files read without trust, its weights checked and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from flowtts_core.audio.mel import MelConfig, mel_filter_bank
from flowtts_core.config import build, spec_of
from flowtts_core.errors import ConfigError, FlowTTSError, VoiceError
from flowtts_core.vocoder import VOCODERS
from flowtts_core.vocoder.base import Vocoder
from flowtts_core.vocoder.files import save_vocoder
from flowtts_core.voice.checkpoint import check_fit

AGAIN = "take the file again from where it came from"


@dataclass(frozen=True)
class ImportedVocoder:
    """A checkpoint of a vocoder, checked to fit `config` tensor by tensor.

    Attributes:
        name: in `VOCODERS`.
        assumed: what neither tensors nor settings told, for the user to know.
    """

    name: str
    config: Any
    state_dict: dict[str, Tensor]
    assumed: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        """As a vocoder's card holds it."""
        return spec_of(self.name, self.config)

    def vocoder(self) -> Vocoder:
        """Return the vocoder with these weights, ready to run."""
        vocoder: Vocoder = build(VOCODERS, self.spec)
        vocoder.load_state_dict(self.state_dict)
        return vocoder.eval()

    def changed(self, **fields: Any) -> ImportedVocoder:
        """Return it with other settings that no weights depend on."""
        return replace(self, config=replace(self.config, **fields))

    def save(self, folder: Path, **notes: Any) -> None:
        """Write a vocoder folder; `notes` go into its card."""
        save_vocoder(folder, self.vocoder(), self.spec, **notes)


def fitted(name: str, config: Any, tensors: dict[str, Tensor], who: str, assumed: str = "") -> ImportedVocoder:
    """Return a checkpoint whose tensors are those of the config's model, as float32.

    Raises:
        VoiceError: naming the tensors that are missing, unknown, of another shape or not finite.
    """
    tensors = {key: tensor.float() for key, tensor in tensors.items()}
    check_fit(build(VOCODERS, spec_of(name, config)).state_dict(), tensors, who)
    return ImportedVocoder(name, config, tensors, assumed)


@contextmanager
def reading(checkpoint: Path, kind: str, source: str) -> Iterator[None]:
    """Turn whatever a strange file makes the code inside raise into a VoiceError that names the file.

    Args:
        kind: as "HiFi-GAN".
        source: where such checkpoints come from.
    """
    try:
        yield
    except ConfigError as error:
        raise VoiceError(f"{checkpoint}: {error.message}", error.remedy) from error
    except FlowTTSError:
        raise
    except KeyError as error:
        raise VoiceError(
            f"{checkpoint}: has no {error.args[0]!r}, so it is no {kind}", f"give a checkpoint of {source}"
        ) from error
    except Exception as error:  # weights without the sides that sizes are read from, sizes that are none, ...
        raise VoiceError(f"{checkpoint}: damaged, or no {kind} ({type(error).__name__}: {error})", AGAIN) from error


def read_settings(path: Path) -> dict[str, Any]:
    """Read a model's JSON or YAML.

    Raises:
        VoiceError: for a file that is missing or holds no mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VoiceError(
            f"{path}: {error.strerror or error}", "give the settings that came with the checkpoint"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise VoiceError(f"{path}: neither JSON nor YAML ({error})", AGAIN) from error
    if not isinstance(settings, dict):
        raise VoiceError(f"{path}: holds no settings", "give the settings that came with the checkpoint")
    return settings


def beside(checkpoint: Path, config: Path | None, name: str) -> Path | None:
    """Return the settings of a checkpoint: those given, else the file of that name in its folder, else None."""
    if config is not None:
        return config
    found = checkpoint.with_name(name)
    return found if found.is_file() else None


def check_bank(mel: MelConfig, bank: Tensor, who: str) -> None:
    """Raise VoiceError unless a checkpoint's filters [F, M] are those of the mel."""
    own = mel_filter_bank(mel)
    if own.shape != bank.shape or not bool((own - bank).abs().max() < 1e-3 * own.max()):
        raise VoiceError(
            f"{who}: its mel filters are not those of {mel.n_mels} bands at {mel.sample_rate} Hz with n_fft {mel.n_fft}",
            "give the settings that came with the checkpoint",
        )
