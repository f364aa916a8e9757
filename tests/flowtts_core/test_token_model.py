"""Speech from tokens: where tokens stand in time, how they are drawn and stopped, and that a stream is the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowtts_core.acoustic import CosyVoice, CosyVoiceConfig
from flowtts_core.acoustic.base import Condition, Prompt
from flowtts_core.acoustic.cosyvoice.decoder import DecoderCondition
from flowtts_core.acoustic.cosyvoice.model import LOOK_AHEAD, TRIES, SpokenBatch
from flowtts_core.audio.mel import MelConfig
from flowtts_core.errors import FlowTTSError
from flowtts_core.lm.text_to_tokens import TextToTokens, TextToTokensConfig
from flowtts_core.sampling import Sampling
from flowtts_core.training.log import TrainingLog
from flowtts_core.training.speech_tokens import SpokenTask
from flowtts_core.vocoder import GriffinLim, GriffinLimConfig

CONFIG = replace(CosyVoiceConfig.debug(), mel_mean=-5.0, mel_std=2.0)
END = CONFIG.codes
SETTINGS = Sampling(steps=2, guidance=0.7, temperature=1.0)


@pytest.fixture
def model() -> CosyVoice:
    torch.manual_seed(0)
    model = CosyVoice(CONFIG)
    for parameter in model.parameters():  # nothing may hide behind a zero initialisation
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def lasting(model: CosyVoice, tokens: int) -> CosyVoice:
    """The model whose texts of ten symbols have exactly so many tokens: the end is certain as soon as it may come."""
    language = replace(CONFIG.language_model, least=tokens / 10, most=tokens / 10 + 9)
    model.lm.config = language
    model.lm.head.bias.data[END] = 1e4
    return model


def without_end(model: CosyVoice) -> CosyVoice:
    model.lm.head.bias.data[END] = -1e4
    return model


def condition(symbols: int = 10, seed: int = 3, voice: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 178, (1, symbols), generator=generator)
    heard = torch.randn(1, 40, 80, generator=torch.Generator().manual_seed(voice)) - 5
    prompt = Prompt(heard, torch.tensor([40]), torch.ones(1, 4, dtype=torch.int64), torch.tensor([4]))
    return Condition(tokens, torch.tensor([symbols]), None, prompt)


# --- tokens -----------------------------------------------------------------------------------------------------------


def language_model() -> TextToTokens:
    torch.manual_seed(1)
    model = TextToTokens(replace(CONFIG.language_model, dropped=0.0), 30, 12, 5)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_the_loss_is_the_cross_entropy_of_tokens_and_end() -> None:
    model = language_model()
    text, speaker = torch.tensor([4, 9, 2]), torch.randn(2, 5)
    codes, lengths = torch.tensor([[3, 7, 1, 1], [5, 0, 0, 0]]), torch.tensor([4, 1])
    loss = model.loss([text, text[:2]], speaker, codes, lengths)
    apart = []
    for row, (own, size) in enumerate(((text, 4), (text[:2], 1))):
        x = torch.cat([model.prefix(own, speaker[row]), model.speech(codes[row, :size])])
        scores = model.head(model.transformer(x[None]))[0, len(own) + 1 :]
        wanted = [*codes[row, :size].tolist(), 12]
        apart += [-scores[place].log_softmax(0)[code] for place, code in enumerate(wanted)]
    torch.testing.assert_close(loss, torch.stack(apart).mean())


def test_a_batch_draws_what_its_singles_draw_each_to_its_own_end() -> None:
    model = language_model()
    texts, speakers = [torch.arange(1, size) for size in (9, 4, 21)], torch.randn(3, 5)
    together = model.draw(texts, speakers, [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    while not together.done:
        together.step()
    for row, text in enumerate(texts):
        alone = model.draw([text], speakers[row : row + 1], [torch.Generator().manual_seed(row + 1)])
        while not alone.done:
            alone.step()
        assert alone.codes[0] == together.codes[row]
        least, most = model.config.bounds(len(text))
        assert least <= len(alone.codes[0]) <= most and max(alone.codes[0]) < 12
    assert len({len(codes) for codes in together.codes}) == 3, "lengths differ, or the test shows nothing"


def test_drafts_that_are_drawn_together_have_the_tokens_of_each_alone(model: CosyVoice) -> None:
    parts = [condition(symbols, symbols, symbols) for symbols in (4, 11, 7)]
    pad = torch.nn.utils.rnn.pad_sequence
    clips = [part.prompt for part in parts if part.prompt is not None]
    heard, said = torch.cat([clip.features for clip in clips]), torch.ones(3, 4, dtype=torch.int64)
    prompt = Prompt(heard, torch.tensor([40] * 3), said, torch.tensor([4] * 3))
    whole = Condition(pad([part.tokens[0] for part in parts], batch_first=True), torch.tensor([4, 11, 7]), None, prompt)
    found = model.drafts(whole, [1, 2, 3], 1.0, together=True)
    for draft in found[::-1]:
        draft.draw()
    for seed, (part, draft) in enumerate(zip(parts, found, strict=True), 1):
        alone = model.draft(part, seed, 1.0)
        alone.draw()
        assert alone.codes == draft.codes and draft.tries == alone.tries
    assert len({len(draft.codes) for draft in found}) > 1


def test_a_text_that_finds_no_end_is_drawn_again_and_then_refused(model: CosyVoice) -> None:
    draft = without_end(model).draft(condition(), 1, 1.0)
    with pytest.raises(FlowTTSError, match="found no end: 75 tokens for 10 symbols"):
        draft.draw()
    assert draft.tries == TRIES and len(draft.codes) == CONFIG.language_model.bounds(10)[1] == 75
    with pytest.raises(FlowTTSError, match="no end"):
        model.generate(condition(), [1], SETTINGS)
    heard = model.draft(condition(), 1, 1.0)
    with pytest.raises(FlowTTSError, match="no end"):
        heard.draw(heard=True)
    assert heard.tries == 1, "what was heard is not drawn again"


def test_drawing_again_is_told(model: CosyVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextToTokensConfig, "bounds", lambda config, symbols: (1, 9))
    found = [model.generate(condition(), [seed], SETTINGS) for seed in range(12) if ends(model, seed)]
    assert any(made.notes[0] for made in found) and any(not made.notes[0] for made in found)
    assert {note for made in found for note in made.notes[0]} <= {
        f"found no end {times}, and was drawn again" for times in ("1 time", "2 times")
    }


def ends(model: CosyVoice, seed: int) -> bool:
    try:
        model.draft(condition(), seed, 1.0).draw()
    except FlowTTSError:
        return False
    return True


def test_texts_that_are_empty_or_too_long_are_refused(model: CosyVoice) -> None:
    for symbols in (0, 801):
        with pytest.raises(FlowTTSError, match=f"a text of {symbols} symbols: this voice reads 1 to 800"):
            model.generate(condition(symbols), [1], SETTINGS)
    blank = replace(condition(), tokens=torch.zeros(1, 10, dtype=torch.int64))
    with pytest.raises(FlowTTSError, match="a text of 0 symbols"):
        model.generate(blank, [1], SETTINGS)


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "hop"), [(22050, 256), (24000, 256), (24000, 480), (16000, 320)])
@pytest.mark.parametrize("speed", [0.5, 1.0, 1.3])
def test_each_frame_belongs_to_a_token_that_is_known_in_time(rate: int, hop: int, speed: float) -> None:
    model = CosyVoice(replace(CONFIG, mel=MelConfig(sample_rate=rate, hop_length=hop)))
    for tokens in range(1, 60):
        frames = model.frames_of(tokens, speed)
        assert model.token_at(frames - 1, speed) == tokens - 1 and model.token_at(frames, speed) == tokens
        assert frames == pytest.approx(tokens / 25 * rate / hop / speed, abs=1)


def test_a_stream_has_the_frames_of_the_whole(model: CosyVoice) -> None:
    """Of tokens drawn no further than they must be."""
    whole = lasting(model, 40).draft(condition(), 5, 1.0)
    whole.draw()
    assert len(whole.codes) == 40
    mel = model.decode(whole, whole.frames_known(), SETTINGS)
    draft = model.draft(condition(), 5, 1.0)
    for frames in (16, 32, 96):
        draft.draw(draft.tokens_for(frames))
        assert not draft.ended and draft.frames_known() >= frames
        assert len(draft.codes) == model.token_at(frames - 1, 1.0) + 1 + LOOK_AHEAD
        torch.testing.assert_close(model.decode(draft, frames, SETTINGS), mel[:, :frames], atol=1e-4, rtol=0)
    draft.draw()
    assert draft.codes == whole.codes and draft.frames_known() == mel.shape[1]


def test_who_speaks_and_how_fast_are_followed(model: CosyVoice) -> None:
    lasting(model, 30)
    plain = model.generate(condition(), [1], SETTINGS)
    fast = model.generate(condition(), [1], replace(SETTINGS, speed=2.0))
    assert abs(2 * int(fast.lengths) - int(plain.lengths)) <= 2
    given = model.draft(condition(), 1, 1.0)
    other = model.draft(condition(voice=1), 1, 1.0)
    assert float((given.speaker - other.speaker).norm()) > 1e-2 and float(given.speaker.norm()) == pytest.approx(1)
    with pytest.raises(FlowTTSError, match="prompt"):
        model.generate(replace(condition(), prompt=None), [1], SETTINGS)


def test_padding_of_a_clip_does_not_change_who_speaks(model: CosyVoice) -> None:
    clip = torch.randn(1, 30, 80)
    wide = torch.nn.functional.pad(clip, (0, 0, 0, 11), value=3.0)
    heard = (torch.arange(41) < 30)[None]
    torch.testing.assert_close(
        model.speaker_encoder(wide, heard), model.speaker_encoder(clip, torch.ones(1, 30, dtype=torch.bool))
    )


# --- training ---------------------------------------------------------------------------------------------------------


def spoken(items: int = 4) -> SpokenBatch:
    generator = torch.Generator().manual_seed(2)
    frames, counts = torch.tensor([40, 33, 52, 28][:items]), torch.tensor([6, 4, 9, 3][:items])
    tokens = torch.randint(1, 24, (items, 9), generator=generator) * (torch.arange(9) < counts[:, None])
    mel = torch.randn(items, 80, 52, generator=generator) * 2 - 5
    lengths = (frames * 256 * 25 / 22050).ceil().long()
    codes = torch.randint(0, 12, (items, 16), generator=generator) * (torch.arange(16) < lengths[:, None])
    valid = (torch.arange(52) < frames[:, None])[:, None]
    return SpokenBatch(Condition(tokens, counts), mel * valid, frames, None, codes, lengths)


def test_it_learns_both_halves() -> None:
    torch.manual_seed(0)
    model, batch = CosyVoice(CONFIG).train(), spoken()
    optimizer = torch.optim.AdamW(model.parameters(), 8e-3)
    losses = []
    for step in range(40):
        found = model.loss(batch, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        found["loss"].backward()
        optimizer.step()
        losses.append((float(found["lm"].detach()), float(found["flow"].detach())))
    lm, flow = (sum(values[-5:]) / 5 / values[0] for values in zip(*losses, strict=True))
    assert lm < 0.7 and flow < 0.95


def test_the_language_model_does_not_teach_the_speakers_vector() -> None:
    torch.manual_seed(0)
    model = CosyVoice(CONFIG)
    found = model.loss(spoken(), torch.Generator().manual_seed(0))
    found["lm"].backward(retain_graph=True)
    assert all(p.grad is None for p in model.speaker_encoder.parameters())
    found["flow"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.speaker_encoder.parameters())


def test_without_steps_frames_are_where_the_first_velocity_points(model: CosyVoice) -> None:
    frames = torch.zeros(1, 16, 80)
    given = DecoderCondition(frames + 1, torch.ones(1, 80), frames, torch.tensor([16]))
    made = model.decoder.solve(given, torch.randn(1, 16, 80), replace(SETTINGS, steps=0, guidance=0.0))
    torch.testing.assert_close(made, model.decoder.velocity(frames, torch.zeros(1), given, chunked=True))


def test_a_sample_of_a_training_does_not_fail_where_tokens_do_not_end_yet(model: CosyVoice, tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    probe, vocoder = spoken(2), GriffinLim(GriffinLimConfig(iterations=1))
    SpokenTask(lasting(model, 30), probe, vocoder).sample(model, 1, log)
    SpokenTask(without_end(model), probe, vocoder).sample(model, 2, log)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "unspoken": 0.0}, {"step": 2, "unspoken": 1.0}]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "0000001-generated-0.wav",
        "0000001-generated-1.wav",
    ]
