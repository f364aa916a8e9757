"""Language models of codes: a transformer with a key-value cache, patterns of codebooks, samplers, and models made of them."""

from __future__ import annotations

from flowtts_core.lm.base import TokenLM, generate, stream
from flowtts_core.lm.cache import KeyValueCache
from flowtts_core.lm.patterns import PATTERNS, CodebookPattern, build_pattern, group, ungroup
from flowtts_core.lm.sampling import SAMPLERS, Sampler, build_sampler
from flowtts_core.lm.transformer import Attended, Transformer, TransformerConfig

__all__ = [
    "PATTERNS",
    "SAMPLERS",
    "Attended",
    "CodebookPattern",
    "KeyValueCache",
    "Sampler",
    "TokenLM",
    "Transformer",
    "TransformerConfig",
    "build_pattern",
    "build_sampler",
    "generate",
    "group",
    "stream",
    "ungroup",
]
