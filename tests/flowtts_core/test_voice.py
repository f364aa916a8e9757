"""A voice folder: what is saved is what is loaded, and each kind of damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from flowtts_core.acoustic import MatchaConfig, MatchaTTS
from flowtts_core.audio.mel import VOCOS_24K, MelConfig
from flowtts_core.config import spec_of, to_dict
from flowtts_core.engines.base import Speech
from flowtts_core.engines.tiny import save_tiny
from flowtts_core.errors import VoiceError
from flowtts_core.request import SynthesisRequest
from flowtts_core.sampling import Sampling
from flowtts_core.text.frontends import PhonemeConfig
from flowtts_core.tiny.model import TinyConfig, TinyModel
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig, Vocos, VocosConfig
from flowtts_core.voice import VoiceCard, bundled_voices, find_voice, load_card, open_voice, with_lexicon
from flowtts_core.voice.parts import load_parts, save_voice
from tests.moto_store import s3_bucket
from tests.standins import make_character_voice
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
    return MatchaTTS(replace(MatchaConfig.debug(), n_symbols=178, mel_mean=-5.4321, **fields)), Vocos(
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
    """The weights of a save that fails are refused or not there, and nothing of it lies about."""
    before, files = load_card(folder), {path.name for path in folder.iterdir()}

    def full_disk(file: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(folder, *small())
    assert load_parts(folder).card == before and {path.name for path in folder.iterdir()} == files


def test_a_mel_written_with_integers_is_the_same_mel(tmp_path: Path) -> None:
    mel = MelConfig(f_max=7600)
    acoustic = MatchaTTS(replace(MatchaConfig.debug(), n_symbols=178, mel=mel))
    save(tmp_path / "v", acoustic, Vocos(VocosConfig(mel, 16, 32, 1)))
    assert load_parts(tmp_path / "v").card.sample_rate == 22050


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    voice = load_parts(folder)
    again = make_voice(tmp_path / "amy2")
    assert load_card(again).fingerprint == voice.card.fingerprint  # the name is no part of it
    assert load_card(make_voice(tmp_path / "bob", seed=1)).fingerprint != voice.card.fingerprint


def test_vocoder_without_weights(tmp_path: Path) -> None:
    config = replace(MatchaConfig.debug(), n_symbols=178)
    acoustic, vocoder = MatchaTTS(config), GriffinLim(GriffinLimConfig())
    save_voice(
        tmp_path / "v",
        name="v",
        acoustic=acoustic,
        acoustic_spec=spec_of("matcha", config),
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
    card["parts"]["acoustic"]["encoder_channels"] = 64
    (folder / "voice.json").write_text(json.dumps(card))


def damage_field(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["parts"]["vocoder"]["colour"] = "red"
    (folder / "voice.json").write_text(json.dumps(card))


def damage_mel(folder: Path) -> None:
    card = json.loads((folder / "voice.json").read_text())
    card["parts"]["vocoder"]["mel"]["log_floor"] = 1e-4
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
        (in_card("sample_rate", value=44100), "sample_rate 44100, but the features have 22050"),
        (in_card("speakers", value=["a", "b"]), "2 speakers, but the model has 1"),
        (in_card("sampling", "steps", value=10**9), "steps 1000000000"),
        (in_card("sampling", "speed", value=float("nan")), "speed nan"),
        (in_card("sampling", "guidance", value=-1.0), r"guidance -1\.0"),
        (in_card("sampling", "solver", value="rk45"), "sampling: unknown name 'rk45'"),
        (in_card("sampling", "grid", value={"name": "zigzag"}), "sampling: unknown name 'zigzag'"),
        (in_card("sampling", "grid", value={"name": "sway", "s": 9.0}), r"SwayGrid.s = 9\.0"),
        (in_card("sampling", value=4), "VoiceCard.sampling = 4 is not Sampling"),
        (in_card("prompt", value="required"), "prompt 'required', but the model has 'none'"),
        (in_card("format", value=3), "format 3, this version reads 1 to 2"),
        (in_card("colour", value="red"), "VoiceCard has no field colour"),
        (in_card("parts", value={}), "acoustic: no such part"),
        (in_card("sha256", value={}), r"acoustic\.safetensors: the card has no SHA-256"),
        (in_card("sha256", value=[]), "VoiceCard.sha256 = .* is not dict"),
        (in_card("sha256", value={"acoustic.safetensors": 5}), "acoustic.safetensors = 5 is not str"),
        (in_card("parts", "acoustic", value="matcha"), "VoiceCard.parts.acoustic = 'matcha' is not dict"),
        (in_card("parts", "acoustic", "name", value=["matcha"]), "unknown name"),
        (in_card("parts", "acoustic", "mel", value=5), "MatchaConfig.mel = 5 is not MelConfig"),
        (in_card("parts", "acoustic", "decoder_channels", value=32), "decoder_channels = 32 is not a list"),
        (in_card("parts", "acoustic", "encoder_heads", value=0), "encoder_heads = 0"),
        (in_card("parts", "acoustic", "encoder_heads", value=-1), "encoder_heads = -1"),
        (in_card("parts", "acoustic", "mel", "n_mels", value=0), "acoustic"),
        (in_card("parts", "vocoder", "dim", value=0), "VocosConfig: dim 0"),
        (in_card("parts", "vocoder", "dim", value=2**60), "vocoder: cannot be built"),
        (in_card("parts", "frontend", value={"name": "runes"}), "frontend: unknown name 'runes'"),
        (in_card("parts", "frontend", value={"name": "bytes"}), "257 symbols, but the model has 178"),
        (damage_truncate, r"vocoder\.safetensors: cannot be read, perhaps truncated"),
        (damage_alter, r"acoustic\.safetensors: is not the file that the card names"),
        (damage_remove, r"acoustic\.safetensors: missing"),
        (damage_card, r"voice\.json: not a voice card"),
        (damage_spec, r"acoustic\.safetensors: does not fit the card's spec"),
        (damage_field, r"vocoder: VocosConfig has no field colour"),
        (damage_mel, r"the features differ \(log_floor 1e-05 against 0\.0001\)"),
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
def test_bundled_voices_open_and_say_what_they_are(name: str) -> None:
    card = load_card(name)
    assert (card.name, card.format) == (name, 2)
    assert card.licence and card.source and card.description and card.languages
    assert open_voice(name).fingerprint == card.fingerprint


def test_unknown_voice_lists_the_known() -> None:
    with pytest.raises(VoiceError, match="bundled voices: "):
        find_voice("nobody")


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


# --- cards ------------------------------------------------------------------------------------------------------------


def as_format_1(folder: Path) -> None:
    """Rewrite a card as the first version of it wrote flow voices."""
    card = json.loads((folder / "voice.json").read_text())
    parts, sampling = card.pop("parts"), card.pop("sampling")
    frontend = {name: value for name, value in parts["frontend"].items() if name != "name"}
    old = {"acoustic": parts["acoustic"], "vocoder": {**parts["vocoder"], "adanorm_num_embeddings": None}}
    kept = ("name", "sample_rate", "description", "licence", "source", "speakers", "scores", "sha256")
    sampled = {name: sampling[name] for name in ("steps", "temperature", "speed")}
    old |= {"frontend": frontend, "mel_fingerprint": "e84082ee2263", "language": "en-us", **sampled}
    old |= {name: card[name] for name in kept} | {"format": 1}
    (folder / "voice.json").write_text(json.dumps(old))


def test_a_card_of_the_first_format_opens_as_the_same_voice(folder: Path) -> None:
    request = SynthesisRequest(text="Good morning.")
    card, [speech] = load_card(folder), open_voice(folder).synthesize([request])
    card.parts["vocoder"].pop("adanorm_num_embeddings", None)
    as_format_1(folder)
    assert load_card(folder) == card
    [old] = open_voice(folder).synthesize([request])
    assert isinstance(old, Speech) and isinstance(speech, Speech)
    assert np.array_equal(old.waveform, speech.waveform) and open_voice(folder).fingerprint == card.fingerprint


def test_a_tiny_voice_of_the_first_format_opens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder, model = tmp_path / "tiny", TinyModel(TinyConfig(samples=500))
    card = save_tiny(folder, model)
    [speech] = open_voice(folder).synthesize([SynthesisRequest(text="a i")])
    old = {
        "model": to_dict(model.config),
        "kind": "tiny",
        "steps": 10,
        "licence": "Apache-2.0",
        "source": "sines made by the training itself",
        "scores": {},
        "sha256": card.sha256["tiny.safetensors"],
        "format": 1,
    }
    (folder / "voice.json").unlink()
    (folder / "tiny.json").write_text(json.dumps(old))
    assert load_card(folder) == replace(card, description="")
    [again] = open_voice(folder).synthesize([SynthesisRequest(text="a i")])
    assert isinstance(again, Speech) and isinstance(speech, Speech)
    assert np.array_equal(again.waveform, speech.waveform)


def test_a_fingerprint_changes_with_the_sound_alone(folder: Path) -> None:
    card = load_card(folder)
    for same in ({"name": "bob"}, {"scores": {"wer": 0.1}}, {"description": "x"}, {"licence": "MIT"}, {"source": "y"}):
        assert replace(card, **same).fingerprint == card.fingerprint
    others = [
        replace(card, sampling=replace(card.sampling, steps=5)),
        replace(card, sha256={**card.sha256, "acoustic.safetensors": "0" * 64}),
        with_lexicon(card, {"Eloi": "ˈiːlɔɪ"}),
        replace(card, kind="fake"),
    ]
    assert len({other.fingerprint for other in [card, *others]}) == 1 + len(others)


def test_a_new_field_with_a_default_changes_no_fingerprint(folder: Path) -> None:
    @dataclass(frozen=True)
    class LaterSampling(Sampling):
        churn: float = 0.0

    @dataclass(frozen=True)
    class LaterCard(VoiceCard):
        temperament: str = "even"
        sampling: LaterSampling = field(default_factory=LaterSampling)

    card = load_card(folder)
    values = {f.name: getattr(card, f.name) for f in fields(card)}
    later = LaterCard(**{**values, "sampling": LaterSampling(**vars(card.sampling))})
    assert later.fingerprint == card.fingerprint
    assert replace(later, temperament="hot").fingerprint != card.fingerprint
    assert replace(later, sampling=LaterSampling(churn=0.1)).fingerprint != card.fingerprint


def test_a_lexicon_goes_before_the_voices_own_and_is_refused_without_phonemes(folder: Path, tmp_path: Path) -> None:
    plain, named = open_voice(folder), open_voice(folder, lexicon={"Eloi": "ˈiːlɔɪ"})
    assert plain.frontend is not None and named.frontend is not None
    assert "ˈiːlɔɪ" in named.frontend.encode("the Eloi").phonemes
    assert "ˈiːlɔɪ" not in plain.frontend.encode("the Eloi").phonemes
    with pytest.raises(VoiceError, match="takes no lexicon"):
        open_voice(make_character_voice(tmp_path / "cara"), lexicon={"Eloi": "ˈiːlɔɪ"})


# --- places -----------------------------------------------------------------------------------------------------------


def test_a_kind_that_this_version_does_not_know_is_named(folder: Path) -> None:
    in_card("kind", value="codec")(folder)
    with pytest.raises(VoiceError, match=r"voice\.json: kind 'codec'\n.*this version knows: flow, tiny"):
        open_voice(folder)


def test_a_folder_that_is_no_voice_is_named(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match=r"no voice\.json in that folder\n.*bundled voices: heart, natural"):
        open_voice(tmp_path)
    with pytest.raises(VoiceError, match=r"nowhere://x: no voice can be copied from there"):
        open_voice("nowhere://x")


def test_a_voice_in_an_object_store_is_copied_here_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with s3_bucket("voices") as bucket:
        store = fsspec.filesystem("s3")
        for path in folder.iterdir():
            store.put_file(str(path), f"{bucket}/amy/{path.name}")
        store.pipe_file(f"{bucket}/amy/notes/more.txt", b"not of the voice")
        voice = open_voice(f"{bucket}/amy/")
        assert voice.fingerprint == load_card(folder).fingerprint
        here = find_voice(f"{bucket}/amy")
        assert here.is_relative_to(tmp_path / "cache")
        assert {path.name: path.read_bytes() for path in here.iterdir()} == {
            path.name: path.read_bytes() for path in folder.iterdir()
        }
        store.rm_file(f"{bucket}/amy/acoustic.safetensors")
        assert open_voice(f"{bucket}/amy").fingerprint == voice.fingerprint, "nothing but the card is read again"
        store.pipe_file(f"{bucket}/amy/voice.json", (folder / "voice.json").read_bytes().replace(b'"amy"', b'"eve"'))
        assert find_voice(f"{bucket}/amy") != here, "another card is another voice"
        with pytest.raises(VoiceError, match=r"no voice can be copied from there"):
            open_voice(f"{bucket}/nobody")


def test_a_copy_that_breaks_off_is_no_voice(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.pipe({f"/voices/bob/{path.name}": path.read_bytes() for path in folder.iterdir()})
    get_file = type(store).get_file

    def cut(self: object, remote: str, local: str, **options: object) -> None:
        if "vocoder" in remote:
            raise ConnectionError("reset by peer")
        get_file(self, remote, local, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "get_file", cut)
        with pytest.raises(VoiceError, match="reset by peer"):
            open_voice("memory://voices/bob")
    assert not list((tmp_path / "cache").rglob("voice.json"))
    assert open_voice("memory://voices/bob").fingerprint == load_card(folder).fingerprint
