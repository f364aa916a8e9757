"""VQ-VAE on waveforms, as courses teach it: strided convolutions, one codebook, strided convolutions back.

Source: van den Oord et al. 2017 (arXiv 1711.00937), with the codebook as a moving average (appendix A.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from flowtts_core.codec.encodec import EnCodec, EnCodecConfig, SEANetConfig


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a VQ-VAE; by default a code of 1024 for 320 samples, of 128 dimensions.

    Attributes:
        ratios: strides from the frames to the samples; their product is the number of samples of a frame.
        n_filters: width at the samples; each stride doubles it.
        dimension, bins, codebooks: of the codes; with several codebooks each quantises what those before left over.
        causal: whether frames see those before them alone.
    """

    sample_rate: int = 24000
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    n_filters: int = 8
    dimension: int = 128
    bins: int = 1024
    codebooks: int = 1
    causal: bool = False
    quantizer_dropout: float = 0.0
    replace_after: float = 10.0


class VQVAE(EnCodec):
    """The codec: an EnCodec without recurrence, whose edges are zero."""

    def __init__(self, config: VQVAEConfig) -> None:
        seanet = SEANetConfig(
            dimension=config.dimension,
            n_filters=config.n_filters,
            ratios=config.ratios,
            lstm=0,
            causal=config.causal,
            pad_mode="constant",
            true_skip=True,
        )
        super().__init__(
            EnCodecConfig(
                config.sample_rate,
                seanet,
                n_q=config.codebooks,
                bins=config.bins,
                quantizer_dropout=config.quantizer_dropout,
                replace_after=config.replace_after,
            )
        )
