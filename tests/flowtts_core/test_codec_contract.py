"""Codecs: one contract for all, through the public interface alone."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from flowtts_core.codec import CODECS, Codec, DecodeStream, Encoded, EncodeStream
from flowtts_core.codec.codebook import Codebook
from flowtts_core.codec.files import load_codec, save_codec
from flowtts_core.codec.long import decode_long
from flowtts_core.codec.loss import FADE_S, LOST, lose
from flowtts_core.config import build
from flowtts_core.errors import AudioError, ConfigError, VoiceError
from flowtts_core.nn.weight_norm import add_weight_norm

SEANET = {"n_filters": 4, "dimension": 8, "ratios": [5, 4, 2], "lstm": 1}
STEREO = {**SEANET, "causal": False, "group_norm": True, "channels": 2}
FRAMES = {
    "encoder_dim": 16,
    "encoder_intermediate": 32,
    "encoder_layers": 2,
    "decoder_dim": 16,
    "decoder_intermediate": 32,
    "decoder_layers": 2,
    "bins": 32,
    "hop_length": 40,
    "n_fft": 160,
}
FACODEC = {
    "name": "facodec",
    "width": 4,
    "strides": [2, 4, 5],
    "dimension": 8,
    "decoder_width": 16,
    "prosody_bins": 16,
    "content_bins": 16,
    "residual_bins": 16,
    "codebook_dim": 4,
    "layers": 1,
    "heads": 2,
    "inner": 16,
    "phones": 5,
}
SMALL: dict[str, dict[str, Any]] = {
    "dac": {
        "name": "dac",
        "width": 2,
        "strides": [2, 4, 5],
        "decoder_width": 16,
        "codebooks": 3,
        "bins": 16,
        "codebook_dim": 4,
    },
    "encodec": {"name": "encodec", "seanet": SEANET, "n_q": 3, "bins": 16},
    "encodec stereo": {
        "name": "encodec",
        "seanet": STEREO,
        "n_q": 3,
        "bins": 16,
        "normalize": True,
        "segment_s": 0.05,
        "overlap": 0.1,
    },
    "facodec": FACODEC,
    "facodec of mels": {**FACODEC, "version": 2},
    "factorised": {"name": "factorised", **FRAMES, "prosody_dim": 8, "speaker_dim": 8},
    "frames": {"name": "frames", **FRAMES},
    "frames causal": {"name": "frames", **FRAMES, "causal": True, "codebooks": 3},
    "frames fsq": {"name": "frames", **FRAMES, "levels": [4, 3]},
    "mimi": {
        "name": "mimi",
        "seanet": {**SEANET, "lstm": 0, "pad_mode": "constant", "true_skip": True, "last_kernel_size": 3},
        "heads": 2,
        "layers": 1,
        "inner": 16,
        "context": 5,
        "acoustic": 2,
        "bins": 16,
        "codebook_dim": 4,
    },
    "vqvae": {"name": "vqvae", "ratios": [5, 4, 2], "n_filters": 2, "dimension": 8, "bins": 16},
    "vqvae causal": {"name": "vqvae", "ratios": [5, 4, 2], "n_filters": 2, "dimension": 8, "bins": 16, "causal": True},
    "wavtokenizer": {
        "name": "wavtokenizer",
        "seanet": {**SEANET, "causal": False},
        "bins": 16,
        "dim": 64,
        "intermediate_dim": 64,
        "num_layers": 1,
    },
}
TRAINED = [name for name in SMALL if "stereo" not in name and name.split()[0] not in ("mimi", "facodec")]


def small(name: str) -> Codec:
    """A small codec of a kind, whose codes differ from frame to frame."""
    torch.manual_seed(0)
    codec: Codec = build(CODECS, SMALL[name])
    for module in codec.modules():
        if isinstance(module, torch.nn.Conv1d | torch.nn.LSTM):
            for weight in module.parameters():
                weight.data.mul_(2)  # else the sound hardly matters
        if isinstance(module, Codebook):
            module.inited.fill_(1)
            module.embed.normal_()
    if name in TRAINED:
        for module in codec.modules():
            if isinstance(module, Codebook):
                module.inited.zero_()  # and starts at the latents
        with torch.no_grad():
            codec.train().trained(sound(codec, 100 * codec.hop_length))
    return codec.eval()


def sound(codec: Codec, samples: int, batch: int = 1) -> torch.Tensor:
    """Noise under a slow gain: [B, S], or [B, C, S]."""
    own = torch.randn(batch, codec.channels, samples, generator=torch.Generator().manual_seed(1))
    gains = 0.3 + 0.2 * torch.sin(torch.arange(samples) / 300.0)
    made = own * gains
    return made[:, 0] if codec.channels == 1 else made


def test_every_form_is_tested() -> None:
    assert {spec["name"] for spec in SMALL.values()} == set(CODECS)


@pytest.mark.parametrize("name", sorted(SMALL))
@torch.no_grad()
def test_contract(name: str) -> None:
    """An item of a padded batch is coded as alone; codes are in range; sounds have the promised lengths."""
    codec = small(name)
    waveform = sound(codec, 2300, 2)
    batch = codec.encode(waveform, torch.tensor([2300, 1111]))
    alone = codec.encode(waveform[1:, ..., :1111])
    frames = codec.frames_of(1111)
    assert batch.codes.shape == (2, codec.books, codec.frames_of(2300)) and alone.codes.shape[-1] == frames
    assert batch.lengths.tolist() == [codec.frames_of(2300), frames]
    assert torch.equal(batch.codes[1:, :, :frames], alone.codes) and not batch.codes[1, :, frames:].any()
    assert len(batch.codes.unique()) > 4
    for book, size in enumerate(codec.sizes):
        assert batch.codes[:, book].min() >= 0 and batch.codes[:, book].max() < size
    decoded, single = codec.decode(batch), codec.decode(alone)
    samples = codec.samples_of(frames)
    assert decoded.shape[-1] == codec.samples_of(codec.frames_of(2300)) >= 2300 and single.shape[-1] == samples >= 1111
    torch.testing.assert_close(decoded[1:, ..., :samples], single, atol=1e-5, rtol=0)
    assert not decoded[1, ..., samples:].any() and decoded.isfinite().all()
    assert decoded.shape[:-1] == waveform.shape[:-1]
    for samples in (1, 2, 41):
        short = codec.decode(codec.encode(sound(codec, samples)))
        assert short.shape[-1] == codec.samples_of(codec.frames_of(samples)) and short.isfinite().all()


@pytest.mark.parametrize("name", sorted(SMALL))
@torch.no_grad()
def test_codebooks_are_chosen_at_encode(name: str) -> None:
    codec = small(name)
    waveform, rates = sound(codec, 900), []
    whole = codec.encode(waveform).codes
    for books in range(codec.least_books, codec.books + 1):
        encoded = codec.encode(waveform, books=books)
        assert torch.equal(encoded.codes, whole[:, :books])
        assert codec.decode(encoded).isfinite().all()
        rates.append(codec.bits_per_second(books))
    assert rates == sorted(set(rates))
    for books in (codec.least_books - 1, codec.books + 1):
        with pytest.raises(ConfigError, match="this codec uses"):
            codec.encode(waveform, books=books)


@pytest.mark.parametrize("name", sorted(SMALL))
@torch.no_grad()
def test_what_is_no_sound_and_what_are_no_codes_is_refused(name: str) -> None:
    codec = small(name)
    with pytest.raises(AudioError, match="without samples"):
        codec.encode(sound(codec, 0))
    with pytest.raises(AudioError, match="channel"):
        codec.encode(torch.zeros(1, codec.channels + 1, 500))
    encoded = codec.encode(sound(codec, 500))
    for wrong in (encoded.codes - 1 - encoded.codes.max(), encoded.codes + max(codec.sizes)):
        with pytest.raises(AudioError, match="codebooks have"):
            codec.decode(Encoded(wrong, encoded.lengths, encoded.side))
    with pytest.raises(AudioError, match="codebooks"):
        codec.decode(Encoded(torch.cat([encoded.codes] * 2, 1), encoded.lengths, encoded.side))
    with pytest.raises(AudioError, match="whole numbers"):
        codec.decode(Encoded(encoded.codes.float()))
    quiet = codec.decode(codec.encode(torch.zeros_like(sound(codec, 500))))
    loud = codec.decode(codec.encode(sound(codec, 500).sign()))
    assert quiet.isfinite().all() and loud.isfinite().all()


@pytest.mark.parametrize("name", sorted(SMALL))
@torch.no_grad()
def test_pieces_are_the_whole(name: str) -> None:
    """Codes and sound of a stream equal those of the whole, whatever the pieces are."""
    codec = small(name)
    if not codec.causal:
        with pytest.raises(ConfigError, match="whole sounds only"):
            EncodeStream(codec)
        with pytest.raises(ConfigError, match="whole sounds only"):
            DecodeStream(codec)
        return
    generator = torch.Generator().manual_seed(5)
    for samples in (10, codec.hop_length * 24, codec.hop_length * 31 + 7):
        waveform = sound(codec, samples, 2)
        whole = codec.encode(waveform)
        for longest in (codec.hop_length, 9 * codec.hop_length):
            stream, codes, at = EncodeStream(codec), [], 0
            while at < samples:
                size = int(torch.randint(1, longest, (1,), generator=generator))
                codes.append(stream.push(waveform[:, at : at + size]))
                at += size
            codes.append(stream.end())
            assert torch.equal(torch.cat(codes, -1), whole.codes)
        expected = codec.decode(whole)
        for size in (1, 13):
            listener = DecodeStream(codec)
            pieces = [listener.push(part) for part in whole.codes.split(size, -1)]
            made = torch.cat([*pieces, listener.end()], -1)
            torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    assert codec.latency_s >= codec.hop_length / codec.sample_rate


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_sound_comes_no_later_than_promised(name: str) -> None:
    """What a codec says of its latency is how late samples of the copy are settled."""
    codec = small(name)
    if not codec.causal:
        pytest.skip("codes whole sounds only")
    waveform, hop = sound(codec, codec.hop_length * 50), codec.hop_length
    coder, listener, made = EncodeStream(codec), DecodeStream(codec), 0
    for frame in range(50):
        made += listener.push(coder.push(waveform[:, frame * hop : (frame + 1) * hop])).shape[-1]
        if frame >= 2 * codec.first_frames:
            assert (frame + 1) * hop - made <= codec.lookahead


@pytest.mark.parametrize("name", ["frames causal", "encodec"])
@torch.no_grad()
def test_lost_frames_fade_and_the_rest_is_as_it_was(name: str) -> None:
    codec = small(name)
    hop, fade = codec.hop_length, round(FADE_S * codec.frame_rate)
    codes = codec.encode(sound(codec, hop * 200)).codes
    clean, broken = codec.decode(Encoded(codes)), codes.clone()
    broken[:, 0, 60 : 60 + 2 * fade] = LOST  # one code of a frame is enough
    made = decode_long(codec, Encoded(broken))
    for size in (1, 13):
        listener = DecodeStream(codec)
        pieces = [*(listener.push(part) for part in broken.split(size, -1)), listener.end()]
        torch.testing.assert_close(torch.cat(pieces, -1), made, atol=1e-5, rtol=0)
    begins, ends = 60 * hop - codec.lookahead, (60 + 2 * fade) * hop
    torch.testing.assert_close(made[:, :begins], clean[:, :begins], atol=1e-5, rtol=0)
    held = broken.clone()
    held[..., 60 : 60 + 2 * fade] = codes[..., 59:60]
    held = codec.decode(Encoded(held))
    expected = held.clone()
    gap = expected[:, 60 * hop : ends]
    gap *= (1 - torch.arange(gap.shape[1]) / (fade * hop)).clamp(min=0)
    expected[:, ends : ends + hop] *= torch.arange(hop) / hop
    torch.testing.assert_close(
        made, expected, atol=1e-5, rtol=0, msg="a fade from full to nothing, and back in a frame"
    )
    assert made.diff().abs().max() <= held.diff().abs().max() + 1 / hop * held.abs().max(), "no clicks"
    if codec.context_frames is not None:
        again = ends + codec.context_frames * hop
        torch.testing.assert_close(made[:, again:], clean[:, again:], atol=1e-5, rtol=0)
        assert again < made.shape[1]
    broken = codes.clone()
    broken[..., :5] = LOST
    assert not decode_long(codec, Encoded(broken))[:, : 5 * hop].any(), "there is nothing to repeat"
    with pytest.raises(AudioError, match="codebooks have"):
        DecodeStream(codec).push(codes - codes.max() - 2)


def test_codecs_of_whole_sounds_refuse_losses() -> None:
    codec = small("frames")
    codes = lose(codec.encode(sound(codec, 4000)).codes, 0.1, torch.Generator().manual_seed(0))
    assert 2 < (codes == LOST).sum() < 25
    with pytest.raises(AudioError, match="conceals none"):
        decode_long(codec, Encoded(codes))
    with pytest.raises(AudioError, match="codebooks have"):
        codec.decode(Encoded(codes))


@pytest.mark.parametrize("name", TRAINED)
def test_training_reaches_every_weight(name: str) -> None:
    codec = build(CODECS, SMALL[name]).train()
    waveform = sound(codec, 40 * codec.hop_length, 4)
    codec.trained(waveform)  # codebooks start
    made = codec.trained(waveform, torch.Generator().manual_seed(0))
    assert made.waveform.shape == waveform.shape
    (made.waveform - waveform).square().mean().add(sum(made.losses.values())).backward()
    unused = [n for n, p in codec.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in unused if "scale" not in n and "shift" not in n] == []  # of rows of bandwidths that are not used


@pytest.mark.parametrize("name", ["frames", "vqvae"])
def test_a_small_codec_learns(name: str) -> None:
    """Some steps on two sounds bring the copies nearer than silence is."""
    torch.manual_seed(0)
    codec = build(CODECS, SMALL[name]).train()
    time = torch.arange(400) / 24000
    waveform = torch.stack([0.5 * torch.sin(2 * torch.pi * f * time) for f in (300, 700, 1100, 1900)])
    optimizer = torch.optim.Adam(codec.parameters(), 1e-2)
    for _ in range(60):
        made = codec.trained(waveform)
        loss = (made.waveform - waveform).square().mean() / waveform.square().mean()
        optimizer.zero_grad()
        (loss + 0.1 * sum(made.losses.values())).backward()
        optimizer.step()
    codec.eval()
    with torch.no_grad():
        copy = codec.decode(codec.encode(waveform))
    assert (copy - waveform).square().mean() < 0.7 * waveform.square().mean()


@pytest.mark.parametrize("name", sorted(SMALL))
@torch.no_grad()
def test_a_saved_codec_is_the_same(name: str, tmp_path: Path) -> None:
    codec, spec = small(name), SMALL[name]
    waveform = sound(codec, 1000)
    encoded = codec.encode(waveform)
    expected = codec.decode(encoded)
    if codec.weight_norm:
        add_weight_norm(codec)  # as training has it
    save_codec(tmp_path, codec, spec, licence="MIT")
    loaded = load_codec(tmp_path)
    assert type(loaded.codec) is type(codec) and loaded.spec == spec and loaded.card["licence"] == "MIT"
    again = loaded.codec.encode(waveform)
    assert (again.codes != encoded.codes).float().mean() < 0.01  # folded norms round
    torch.testing.assert_close(loaded.codec.decode(encoded), expected, atol=1e-5, rtol=0)


def test_a_saved_codec_has_no_state_of_training_and_older_files_that_have_it_load(tmp_path: Path) -> None:
    codec, spec = small("frames"), SMALL["frames"]
    save_codec(tmp_path, codec, spec)
    kept = load_file(tmp_path / "codec.safetensors")
    learning = {k: v for k, v in codec.state_dict().items() if k.endswith(("embed_avg", "cluster_size", "idle"))}
    assert len(learning) == 3 and not learning.keys() & kept.keys()
    loaded = load_codec(tmp_path).codec
    book = loaded.quantizer.layers[0]._codebook
    assert torch.equal(book.embed_avg / book.cluster_size[:, None], book.embed), "training goes on from the codes"
    card = json.loads((tmp_path / "codec.json").read_text())
    for tensors, works in (({**kept, **learning}, True), ({k: kept[k] for k in sorted(kept)[1:]}, False)):
        data = save(tensors)
        (tmp_path / "codec.safetensors").write_bytes(data)
        (tmp_path / "codec.json").write_text(json.dumps({**card, "sha256": hashlib.sha256(data).hexdigest()}))
        with nullcontext() if works else pytest.raises(VoiceError, match="missing or unknown"):
            again = load_codec(tmp_path).codec.state_dict()
            assert all(torch.equal(own, again[name]) for name, own in loaded.state_dict().items())


def test_a_damaged_codec_is_refused_and_another_has_another_fingerprint(tmp_path: Path) -> None:
    codec = small("frames")
    for folder in ("a", "b"):
        save_codec(tmp_path / folder, codec, SMALL["frames"], source=folder)
    first = load_codec(tmp_path / "a").fingerprint
    assert first == load_codec(tmp_path / "b").fingerprint, "notes change no codes"
    codec.quantizer.layers[0]._codebook.embed.mul_(1.5)
    save_codec(tmp_path / "b", codec, SMALL["frames"])
    assert load_codec(tmp_path / "b").fingerprint != first
    with (tmp_path / "a/codec.safetensors").open("r+b") as file:
        file.seek(900)
        file.write(b"\x01")
    with pytest.raises(VoiceError, match="SHA-256"):
        load_codec(tmp_path / "a")
    card = json.loads((tmp_path / "b/codec.json").read_text())
    card["codec"]["encoder_dim"] = 24
    (tmp_path / "b/codec.json").write_text(json.dumps(card))
    with pytest.raises(VoiceError, match="not a codec"):
        load_codec(tmp_path / "b")
    with pytest.raises(VoiceError, match="no codec"):
        load_codec(tmp_path)
