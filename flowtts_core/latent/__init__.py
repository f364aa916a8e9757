"""Latent models: an autoencoder of sound, and a diffusion transformer that makes its latents (music)."""

from __future__ import annotations

from flowtts_core.latent.dit import DiTConfig, LatentDiT
from flowtts_core.latent.oobleck import Oobleck, OobleckConfig
from flowtts_core.latent.stable_audio import LatentCondition, StableAudio, StableAudioConfig

__all__ = [
    "DiTConfig",
    "LatentCondition",
    "LatentDiT",
    "Oobleck",
    "OobleckConfig",
    "StableAudio",
    "StableAudioConfig",
]
