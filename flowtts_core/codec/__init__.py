"""Codecs by name: each turns a waveform into codes of frames, and back."""

from flowtts_core.codec.base import Codec, DecodeStream, Encoded, EncodeStream
from flowtts_core.codec.dac import DAC, DACConfig
from flowtts_core.codec.encodec import EnCodec, EnCodecConfig
from flowtts_core.codec.facodec import FACodec, FACodecConfig
from flowtts_core.codec.factorised import FactorisedCodec, FactorisedCodecConfig
from flowtts_core.codec.frames import FrameCodec, FrameCodecConfig
from flowtts_core.codec.mimi import Mimi, MimiConfig
from flowtts_core.codec.vqvae import VQVAE, VQVAEConfig
from flowtts_core.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

CODECS = {
    "dac": (DACConfig, DAC),
    "encodec": (EnCodecConfig, EnCodec),
    "facodec": (FACodecConfig, FACodec),
    "factorised": (FactorisedCodecConfig, FactorisedCodec),
    "frames": (FrameCodecConfig, FrameCodec),
    "mimi": (MimiConfig, Mimi),
    "vqvae": (VQVAEConfig, VQVAE),
    "wavtokenizer": (WavTokenizerConfig, WavTokenizer),
}

__all__ = [
    "CODECS",
    "DAC",
    "VQVAE",
    "Codec",
    "DACConfig",
    "DecodeStream",
    "EnCodec",
    "EnCodecConfig",
    "EncodeStream",
    "Encoded",
    "FACodec",
    "FACodecConfig",
    "FactorisedCodec",
    "FactorisedCodecConfig",
    "FrameCodec",
    "FrameCodecConfig",
    "Mimi",
    "MimiConfig",
    "VQVAEConfig",
    "WavTokenizer",
    "WavTokenizerConfig",
]
