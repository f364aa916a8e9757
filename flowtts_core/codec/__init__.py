"""Codecs by name: each turns a waveform into codes of frames, and back."""

from flowtts_core.codec.base import Codec, DecodeStream, Encoded, EncodeStream
from flowtts_core.codec.encodec import EnCodec, EnCodecConfig
from flowtts_core.codec.frames import FrameCodec, FrameCodecConfig
from flowtts_core.codec.vqvae import VQVAE, VQVAEConfig
from flowtts_core.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig

CODECS = {
    "encodec": (EnCodecConfig, EnCodec),
    "frames": (FrameCodecConfig, FrameCodec),
    "vqvae": (VQVAEConfig, VQVAE),
    "wavtokenizer": (WavTokenizerConfig, WavTokenizer),
}

__all__ = [
    "CODECS",
    "VQVAE",
    "Codec",
    "DecodeStream",
    "EnCodec",
    "EnCodecConfig",
    "EncodeStream",
    "Encoded",
    "FrameCodec",
    "FrameCodecConfig",
    "VQVAEConfig",
    "WavTokenizer",
    "WavTokenizerConfig",
]
