"""A voice folder: what is saved is what is loaded, and each kind of damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flowtts_core.acoustic import MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import spec_of
from flowtts_core.errors import VoiceError
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig, Vocos, VocosConfig
from flowtts_core.voice.card import bundled_voices, load_card
from flowtts_core.voice.parts import load_parts, save_voice
from tests.voices import make_voice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_voice(tmp_path / "amy")


def save(folder: Path, acoustic: MatchaTTS, vocoder: Vocos, half: bool = False) -> None:
    specs = spec_of("matcha", acoustic.config), spec_of("vocos", vocoder.config)
    save_voice(
        folder,
        name="v",
        acoustic=acoustic,
        acoustic_spec=specs[0],
        vocoder=vocoder,
        vocoder_spec=specs[1],
        frontend=spec_of("phonemes", PhonemeConfig()),
        half=half,
    )


def small(**fields: object) -> tuple[MatchaTTS, Vocos]:
    return MatchaTTS(replace(MatchaConfig.debug(), mel_mean=-5.4321, **fields)), Vocos(
        VocosConfig(MelConfig(), 16, 32, 1)
    )


@pytest.mark.parametrize("half", [False, True])
def test_what_is_loaded_is_what_was_saved(half: bool, tmp_path: Path) -> None:
    parts = small()
    save(tmp_path / "v", *parts, half=half)
    voice = load_parts(tmp_path / "v")
    for module, loaded in zip(parts, (voice.acoustic, voice.vocoder), strict=True):
        weights, found = {name for name, _ in module.named_parameters()}, loaded.state_dict()
        assert found.keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            expected = value.half().float() if half and name in weights else value  # statistics keep their precision
            assert torch.equal(found[name], expected), name
    assert not list((tmp_path / "v").glob("*.part"))


def test_a_failed_save_leaves_the_voice_that_stood_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_card(folder).fingerprint
    written: list[Path] = []

    def full_disk(tensors: object, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError("No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr("flowtts_core.voice.parts.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(folder, *small())
    assert load_parts(folder).card.fingerprint == before


def test_a_mel_written_with_integers_is_the_same_mel(tmp_path: Path) -> None:
    mel = MelConfig(f_max=7600)
    acoustic = MatchaTTS(replace(MatchaConfig.debug(), mel=mel))
    save(tmp_path / "v", acoustic, Vocos(VocosConfig(mel, 16, 32, 1)))
    assert load_parts(tmp_path / "v").card.sample_rate == 22050


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    voice = load_parts(folder)
    again = make_voice(tmp_path / "amy2")
    assert load_card(again).fingerprint == voice.card.fingerprint  # the name is no part of it
    assert load_card(make_voice(tmp_path / "bob", seed=1)).fingerprint != voice.card.fingerprint


def test_vocoder_without_weights(tmp_path: Path) -> None:
    acoustic, vocoder = MatchaTTS(MatchaConfig.debug()), GriffinLim(GriffinLimConfig())
    save_voice(
        tmp_path / "v",
        name="v",
        acoustic=acoustic,
        acoustic_spec=spec_of("matcha", MatchaConfig.debug()),
        vocoder=vocoder,
        vocoder_spec=spec_of("griffin_lim", GriffinLimConfig()),
        frontend=spec_of("phonemes", PhonemeConfig()),
        half=True,
    )
    assert isinstance(load_parts(tmp_path / "v").vocoder, GriffinLim)
    assert next(load_parts(tmp_path / "v").acoustic.parameters()).dtype == torch.float32


def damage_truncate(folder: Path) -> None:
    path = folder / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_alter(folder: Path) -> None:
    path = folder / "acoustic.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def damage_remove(folder: Path) -> None:
    (folder / "acoustic.safetensors").unlink()


def damage_card(folder: Path) -> None:
    (folder / "voice.json").write_text("{")


def damage_spec(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["acoustic"]["encoder_channels"] = 64
    (folder / "voice.json").write_text(json.dumps(card))


def damage_field(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["vocoder"]["colour"] = "red"
    (folder / "voice.json").write_text(json.dumps(card))


def damage_mel(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["vocoder"]["mel"]["log_floor"] = 1e-7
    (folder / "voice.json").write_text(json.dumps(card))


def in_card(*path: str, value: object) -> Callable[[Path], None]:
    """A damage that sets one field of the card."""

    def damage(folder: Path) -> None:
        card = json.loads((folder / "voice.json").read_text())
        inner = card
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "voice.json").write_text(json.dumps(card))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (in_card("sample_rate", value=44100), "sample_rate 44100, but the mel has 22050"),
        (in_card("mel_fingerprint", value="0123456789ab"), "mel_fingerprint 0123456789ab, but the mel's is"),
        (in_card("speakers", value=["a", "b"]), "2 speakers, but the model has 1"),
        (in_card("steps", value=10**9), "steps 1000000000"),
        (in_card("speed", value=float("nan")), "speed nan"),
        (in_card("sha256", value={}), r"acoustic\.safetensors: the card has no SHA-256"),
        (in_card("sha256", value=[]), "VoiceCard.sha256 = .* is not dict"),
        (in_card("sha256", value={"acoustic.safetensors": 5}), "acoustic.safetensors = 5 is not str"),
        (in_card("acoustic", value="matcha"), "VoiceCard.acoustic = 'matcha' is not dict"),
        (in_card("acoustic", "name", value=["matcha"]), "unknown name"),
        (in_card("acoustic", "mel", value=5), "MatchaConfig.mel = 5 is not MelConfig"),
        (in_card("acoustic", "decoder_channels", value=32), "decoder_channels = 32 is not tuple"),
        (in_card("acoustic", "encoder_heads", value=0), "encoder_heads = 0"),
        (in_card("acoustic", "encoder_heads", value=-1), "encoder_heads = -1"),
        (in_card("acoustic", "mel", "n_mels", value=0), "acoustic"),
        (in_card("vocoder", "dim", value=0), "VocosConfig: dim 0"),
        (in_card("vocoder", "dim", value=2**60), "vocoder: cannot be built"),
        (in_card("frontend", value="gruut"), "VoiceCard.frontend = 'gruut' is not PhonemeConfig"),
        (damage_truncate, r"vocoder\.safetensors: cannot be read, perhaps truncated"),
        (damage_alter, r"acoustic\.safetensors: is not the file that the card names"),
        (damage_remove, r"acoustic\.safetensors: missing"),
        (damage_card, r"voice\.json: not a voice card"),
        (damage_spec, r"acoustic\.safetensors: does not fit the card's spec"),
        (damage_field, r"vocoder: VocosConfig has no field colour"),
        (damage_mel, r"the features differ \(log_floor 1e-05 against 1e-07\)"),
    ],
)
def test_damage_is_named(folder: Path, damage: object, message: str) -> None:
    assert callable(damage)
    damage(folder)
    with pytest.raises(VoiceError, match=message):
        load_parts(folder)


def test_an_unreadable_card_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(VoiceError, match=r"voice\.json: not a voice card .*Permission denied"):
        load_card(folder)


@pytest.mark.parametrize("name", bundled_voices())
def test_bundled_voices_load(name: str) -> None:
    assert load_parts(name).card.mel_fingerprint == load_parts(name).acoustic.features.fingerprint


def test_unknown_voice_lists_the_known() -> None:
    with pytest.raises(VoiceError, match="bundled voices: "):
        load_parts("nobody")


def test_parts_of_different_mels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="sample_rate 22050 against 24000"):
        save_voice(
            tmp_path / "v",
            name="v",
            acoustic=MatchaTTS(MatchaConfig.debug()),
            acoustic_spec=spec_of("matcha", MatchaConfig.debug()),
            vocoder=Vocos(VocosConfig(VOCOS_24K, 16, 32, 1)),
            vocoder_spec=spec_of("vocos", VocosConfig(VOCOS_24K, 16, 32, 1)),
            frontend=spec_of("phonemes", PhonemeConfig()),
        )


def test_mel_arithmetic() -> None:
    same, center = MelConfig(), VOCOS_24K
    assert same.frames_of(256 * 10 + 255) == 10 and same.samples_of(10) == 2560
    assert center.frames_of(2560) == 11 and center.samples_of(11) == 2560
    assert same.fingerprint != center.fingerprint and same.fingerprint == MelConfig().fingerprint
    assert same.frames_in(1.0) == 86
