"""Tiny models with random weights, saved with their processors as published ones are, for the tests of pretrained judges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import flowtts_core.audio.torchaudio_import  # noqa: F401  # before transformers, which imports torchaudio

transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'flowtts[hub]'")
tokenizers = pytest.importorskip("tokenizers")

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
RAW = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_kernel": (20, 25),
    "conv_stride": (16, 20),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "vocab_size": len(LETTERS),
    "tdnn_dim": (16, 16, 24),
    "tdnn_kernel": (5, 3, 1),
    "tdnn_dilation": (1, 2, 1),
    "xvector_output_dim": 12,
}


def tone(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """A gliding tone with some noise, the same at every rate but for the noise's sampling, [S]."""
    t = np.arange(round(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * (180 + 40 * seed + 60 * np.sin(2 * np.pi * 0.7 * t)) * t)
    return (sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def save_raw(folder: Path, head: str, rate: int = 16_000, **changes: object) -> Path:
    """A wav2vec-like model by the name of its class ("WavLMModel", "HubertForCTC", "WavLMForXVector", ...)."""
    torch.manual_seed(0)
    model_class = getattr(transformers, head)
    model_class(model_class.config_class(**(RAW | changes))).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=True).save_pretrained(folder)
    return folder


def save_letters(folder: Path) -> Path:
    """A CTC tokenizer of letters."""
    (folder / "vocab.json").write_text(json.dumps({letter: index for index, letter in enumerate(LETTERS)}))
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


def save_whisper(folder: Path, *, multilingual: bool = True, timestamps: bool = True) -> Path:
    """A Whisper of two layers: bytes, words a0 to a63, then special tokens and timestamps in the order of the published ones."""
    torch.manual_seed(1)
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"\u0120a{n}" for n in range(64))]  # byte-level tokens write a space so
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    stamps = [f"<|{n * 0.02:.2f}|>" for n in range(1501)]
    ids = {token: index for index, token in enumerate([*words, *special, *stamps])}
    tokenizer = transformers.WhisperTokenizer(vocab={word: ids[word] for word in words}, merges=[])
    tokenizer.add_tokens([tokenizers.AddedToken(token, special=True) for token in special[1:]], special_tokens=True)
    tokenizer.add_tokens([tokenizers.AddedToken(token) for token in stamps])
    tokenizer.save_pretrained(folder)
    config = transformers.WhisperConfig(
        vocab_size=len(ids),
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        tie_word_embeddings=False,
        pad_token_id=ids[special[0]],
        bos_token_id=ids[special[0]],
        eos_token_id=ids[special[0]],
        decoder_start_token_id=ids[special[1]],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():  # words a0 to a63 before anything else, and other ones for other sounds
        model.proj_out.weight[len(letters) : len(words)].normal_(std=2)
        model.model.decoder.embed_tokens.weight.normal_(std=0.5)
        for layer in model.model.decoder.layers:
            for part in (layer.encoder_attn.q_proj, layer.encoder_attn.k_proj, layer.encoder_attn.v_proj):
                part.weight.normal_()
            layer.encoder_attn.out_proj.weight.normal_()
        for convolution in (model.model.encoder.conv1, model.model.encoder.conv2):
            convolution.weight.normal_(std=0.3)
    settings = model.generation_config
    settings._from_model_config = False  # else it would be made anew from config.json
    settings.max_length, settings.is_multilingual = 24, multilingual
    if timestamps:
        settings.no_timestamps_token_id = ids["<|notimestamps|>"]
        settings.max_initial_timestamp_index = 50
    if multilingual:
        settings.lang_to_id = {"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]}
        settings.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def save_clap(folder: Path, *, fusion: bool = False) -> Path:
    """A CLAP of one stage over windows of 1 s at 48 kHz."""
    torch.manual_seed(2)
    words = ["<s>", "<pad>", "</s>", "<unk>", *"a dog barks the rain falls".split()]
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    text = transformers.ClapTextConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, projection_dim=8,
    )  # fmt: skip
    audio = transformers.ClapAudioConfig(
        spec_size=64, num_mel_bins=16, patch_embeds_hidden_size=8, depths=[1, 1], num_attention_heads=[1, 2],
        hidden_size=16, window_size=4, patch_size=4, patch_stride=[4, 4], projection_dim=8,
        enable_fusion=fusion, aff_block_r=2,
    )  # fmt: skip
    config = transformers.ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=8)
    transformers.ClapModel(config).save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        feature_size=16, max_length_s=1, truncation="fusion" if fusion else "rand_trunc"
    ).save_pretrained(folder)
    return folder


def save_encodec(folder: Path, **changes: object) -> Path:
    torch.manual_seed(3)
    tiny = {"num_filters": 2, "hidden_size": 8, "codebook_size": 16, "codebook_dim": 8, "num_lstm_layers": 1}
    config = transformers.EncodecConfig(**(tiny | changes))
    transformers.EncodecModel(config).save_pretrained(folder)
    transformers.EncodecFeatureExtractor(
        feature_size=config.audio_channels, sampling_rate=config.sampling_rate
    ).save_pretrained(folder)
    return folder
