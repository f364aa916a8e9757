"""Katakana and Japanese marks in misaki's alphabet.

Source of the table: misaki 0.7.4 (hexgrad, Apache-2.0), ja.py, with which Kokoro v1.0 was trained.
"""

from __future__ import annotations

import re

_MORAS = """
ァa アa ィi イi ゥɯ ウɯ ェe エe ォo オo
カka ガɡa キkʲi ギɡʲi クkɯ グɡɯ ケke ゲɡe コko ゴɡo ヵka ヶke
サsa ザʣa シɕi ジʥi スsɨ ズzɨ セse ゼʣe ソso ゾʣo
タta ダda チʨi ヂʥi ツʦɨ ヅzɨ テte デde トto ドdo
ナna ニɲi ヌnɯ ネne ノno
ハha バba パpa ヒçi ビbʲi ピpʲi フɸɯ ブbɯ プpɯ ヘhe ベbe ペpe ホho ボbo ポpo
マma ミmʲi ムmɯ メme モmo
ャja ヤja ュjɯ ユjɯ ョjo ヨjo
ラɾa リɾʲi ルɾɯ レɾe ロɾo
ヮβa ワβa ヰi ヱe ヲo ヴvɯ ヷva ヸvʲi ヹve ヺvo
イェje ウィβi ウェβe ウォβo
キェkʲe キャkʲa キュkʲɨ キョkʲo ギャɡʲa ギュɡʲɨ ギョɡʲo
クァkᵝa クィkᵝi クェkᵝe クォkᵝo グァɡᵝa グィɡᵝi グェɡᵝe グォɡᵝo
シェɕe シャɕa シュɕɨ ショɕo ジェʥe ジャʥa ジュʥɨ ジョʥo
チェʨe チャʨa チュʨɨ チョʨo ヂャʥa ヂュʥɨ ヂョʥo
ツァʦa ツィʦʲi ツェʦe ツォʦo
ティtʲi テュtʲɨ ディdʲi デュdʲɨ トゥtɯ ドゥdɯ
ニェɲe ニャɲa ニュɲɨ ニョɲo
ヒェçe ヒャça ヒュçɨ ヒョço ビャbʲa ビュbʲɨ ビョbʲo ピャpʲa ピュpʲɨ ピョpʲo
ファɸa フィɸʲi フェɸe フォɸo フュɸʲɨ フョɸʲo
ミャmʲa ミュmʲɨ ミョmʲo リャɾʲa リュɾʲɨ リョɾʲo
ヴァva ヴィvʲi ヴェve ヴォvo ヴュbʲɨ ヴョbʲo
"""
PHONEMES: dict[str, str] = dict(re.findall(r"([ァ-ヺ]+)(\S+)", _MORAS))
SMALL = "ァィゥェォャュョ"  # each takes the place of the vowel before it, where no line above has the pair

# Japanese marks -> those of the voice. A middle dot is a space, a bracket a pause, as in English.
MARKS = {
    **dict(zip("。、，？！：；・", ".,,?!:; ", strict=True)),
    **dict.fromkeys("「『“", "“"),
    **dict.fromkeys("」』”", "”"),
    **dict.fromkeys("〜～~—―–─", "—"),
    **dict.fromkeys("…‥", "…"),
    **dict.fromkeys("()[]{}（）［］｛｝【】〔〕〈〉《》", ","),
    **{mark: mark for mark in '.,?!:;"'},
}
SILENT = frozenset("-‐‑−/|*_'‘’゛゜")  # nobody reads them aloud
# Characters that pyopenjtalk cannot read -> one that it reads.
READ_AS = {**dict(zip("ㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿ", "クシストヌハヒフヘホムラリルレロ", strict=True)), "℃": "度"}
