"""Supervised semantic tokens: 25 a second, of a small codebook between frozen features and the phonemes that they must tell.

CosyVoice's idea (Du et al. 2024, arXiv 2407.05407; with FSQ, 2412.10117): what tells phonemes apart passes, who speaks does not.
Published tokenisers are trained inside a recogniser; this one stands on the features of one that is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn

from flowtts_core.codec.quantize import FiniteScalarQuantizer
from flowtts_core.config import fingerprint, from_dict, to_dict
from flowtts_core.errors import ConfigError, VoiceError
from flowtts_core.files import write_whole
from flowtts_core.nn.convnext import ConvNeXtBlock
from flowtts_core.nn.masks import length_mask

TOKEN_RATE = 25  # tokens a second
CARD, WEIGHTS = "tokeniser.json", "tokeniser.safetensors"
_PAIR = 2  # features that make a token
_REMEDY = "train the tokeniser again: flowtts train DATA --recipe cosy_tokens -o FOLDER"


@dataclass(frozen=True)
class SemanticConfig:
    """Sizes of a `SemanticTokenizer`.

    Attributes:
        features: D of what it reads.
        whisper: names the model that made them, see `whisper_digest`.
        width: of its blocks.
        before, after: ConvNeXt blocks on either side of the quantiser.
        levels: of each number of the quantiser; their product is the number of tokens.
        n_symbols: of the front end; 0 is CTC's blank.
        silent: symbols that are not heard as sounds of their own: stress, spaces, punctuation.
    """

    features: int = 512
    whisper: str = ""
    width: int = 256
    before: int = 2
    after: int = 4
    levels: tuple[int, ...] = (8, 5, 5, 5)
    n_symbols: int = 178
    silent: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.n_symbols) < 1 or min(self.before, self.after) < 0:
            raise ConfigError(f"SemanticConfig: width {self.width}, blocks {self.before} and {self.after}")


class SemanticTokenizer(nn.Module):
    """Features to tokens; in training, tokens to phonemes. A token stands for two features, and is a step of CTC.

    Attributes:
        codes: number of tokens.
    """

    def __init__(self, config: SemanticConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.scale = nn.LayerNorm(config.features)
        self.reduce = nn.Linear(_PAIR * config.features, width)
        self.before = nn.ModuleList(ConvNeXtBlock(width, 3 * width, 0.2) for _ in range(config.before))
        self.norm = nn.LayerNorm(width)
        self.quantizer = FiniteScalarQuantizer(width, config.levels)
        self.after = nn.ModuleList(ConvNeXtBlock(width, 3 * width, 0.2) for _ in range(config.after))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, config.n_symbols)
        self.codes = self.quantizer.size

    def latents(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is quantised, [B, D, N], of features [B, T, D], and the tokens [B] that each item has."""
        counts = (lengths + _PAIR - 1) // _PAIR
        valid = length_mask(lengths, features.shape[1])
        whole = F.pad(self.scale(features) * valid[:, :, None], (0, 0, 0, -features.shape[1] % _PAIR))
        x: Tensor = self.reduce(whole.unflatten(1, (-1, _PAIR)).flatten(2))
        x = self.norm(_mixed(self.before, x, counts))
        return x.transpose(1, 2), counts

    def forward(
        self, features: Tensor, lengths: Tensor, quantized: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log probabilities [B, N, K] of phonemes, their lengths [B], and the tokens [B, N].

        Args:
            quantized: [B] bool, the items whose phonemes are told by tokens, not by what those are made of; None: all.
        """
        latents, counts = self.latents(features, lengths)
        made = self.quantizer(latents)
        values = made.values if quantized is None else made.values.where(quantized[:, None, None], latents)
        x = self.last(_mixed(self.after, values.transpose(1, 2), counts))
        return self.head(x).float().log_softmax(2), counts, made.codes[:, 0]

    @torch.inference_mode()
    def encode(self, features: Tensor) -> Tensor:
        """Return the tokens [N] of the features [T, D] of a sound."""
        latents, _ = self.latents(features[None], torch.tensor([len(features)], device=features.device))
        return self.quantizer.encode(latents)[0]

    def heard(self, log_probabilities: Tensor) -> list[int]:
        """Return the phonemes of the likeliest path through [T, K]: repeats are one, blanks none."""
        best = log_probabilities.argmax(1)
        changed = torch.cat([best.new_ones(1, dtype=torch.bool), best[1:] != best[:-1]])
        return [symbol for symbol in best[changed].tolist() if symbol]

    def phonemes_of(self, tokens: Tensor) -> Tensor:
        """Return the symbols of a text [L] that are heard as sounds of their own."""
        silent = torch.tensor((0, *self.config.silent), device=tokens.device)
        return tokens[~torch.isin(tokens, silent)]


def _mixed(blocks: nn.ModuleList, x: Tensor, lengths: Tensor) -> Tensor:
    """[B, N, C] -> [B, N, C]; padding is not seen."""
    valid = length_mask(lengths, x.shape[1])[:, :, None]
    for block in blocks:
        x = block((x * valid).transpose(1, 2)).transpose(1, 2)
    return x


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokeniser, ready to run, and what names its tokens."""

    tokenizer: SemanticTokenizer
    fingerprint: str


def save_tokenizer(folder: Path, tokenizer: SemanticTokenizer, **notes: Any) -> None:
    """Write the weights, then the card (`notes` are further JSON values: licence, source, steps)."""
    folder.mkdir(parents=True, exist_ok=True)
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tokenizer.state_dict().items()})
    write_whole(folder / WEIGHTS, data)
    card = {"tokeniser": to_dict(tokenizer.config), "sha256": hashlib.sha256(data).hexdigest(), **notes}
    write_whole(folder / CARD, (json.dumps(card, indent=1, ensure_ascii=False) + "\n").encode())


def load_tokenizer(folder: Path) -> LoadedTokenizer:
    """Load the tokeniser of a folder, in eval mode.

    Raises:
        VoiceError: when something is missing, damaged, or does not fit together.
    """
    card = read_tokenizer_card(folder)
    try:
        data = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != card["sha256"]:
            raise VoiceError(f"{folder / WEIGHTS}: is not the file that {CARD} names (its SHA-256 differs)", _REMEDY)
        tokenizer = SemanticTokenizer(from_dict(SemanticConfig, card["tokeniser"]))
        tokenizer.load_state_dict(load(data))
    except VoiceError:
        raise
    except Exception as error:  # the sizes in a card can make a constructor raise anything
        raise VoiceError(f"{folder}: not a tokeniser ({error})", _REMEDY) from error
    return LoadedTokenizer(tokenizer.eval(), tokenizer_fingerprint(card))


def read_tokenizer_card(folder: Path) -> dict[str, Any]:
    """Return the card of a tokeniser's folder; raises VoiceError where there is none."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        from_dict(SemanticConfig, card["tokeniser"])
        card["sha256"]
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise VoiceError(f"{folder}: no tokeniser of speech ({error})", _REMEDY) from error
    return card


def tokenizer_fingerprint(card: Mapping[str, Any]) -> str:
    """Return what names a tokeniser's tokens: its settings and its weights."""
    return fingerprint({"tokeniser": card["tokeniser"], "sha256": card["sha256"]})
