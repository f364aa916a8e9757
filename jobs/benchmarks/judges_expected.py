"""The degradations that test the judges, what each figure should do under each, and why some do otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flowtts_core.metrics import degradations as damage


@dataclass(frozen=True)
class Degradation:
    """A degradation of a clip [S] at its sample rate, or of the text that it is judged by."""

    about: str
    sound: Callable[[np.ndarray, int], np.ndarray] = lambda x, rate: x
    text: Callable[[str], str] = lambda text: text


DEGRADATIONS: dict[str, Degradation] = {
    "noise_20": Degradation("white noise, 20 dB below the speech", lambda x, rate: damage.white_noise(x, 20)),
    "noise_10": Degradation("white noise, 10 dB below the speech", lambda x, rate: damage.white_noise(x, 10)),
    "noise_0": Degradation("white noise as strong as the speech", lambda x, rate: damage.white_noise(x, 0)),
    "band_8k": Degradation(
        "as recorded at 8 kHz: nothing above 4 kHz", lambda x, rate: damage.band_limit(x, rate, 4000)
    ),
    "slower": Degradation("0.8 times the pace, pitch kept (WSOLA)", lambda x, rate: damage.stretch(x, rate, 0.8)),
    "faster": Degradation("1.25 times the pace, pitch kept (WSOLA)", lambda x, rate: damage.stretch(x, rate, 1.25)),
    "tape_slower": Degradation(
        "played at 0.8 times the speed: 3.9 semitones lower", lambda x, rate: damage.play_at(x, 0.8)
    ),
    "tape_faster": Degradation(
        "played at 1.25 times the speed: 3.9 semitones higher", lambda x, rate: damage.play_at(x, 1.25)
    ),
    "pitch_up": Degradation(
        "3 semitones higher, formants too, same length", lambda x, rate: damage.shift_pitch(x, rate, 3)
    ),
    "pitch_down": Degradation(
        "3 semitones lower, formants too, same length", lambda x, rate: damage.shift_pitch(x, rate, -3)
    ),
    "truncated": Degradation("the last third cut off", lambda x, rate: damage.truncate(x)),
    "swapped_words": Degradation("each two words of the text exchanged, the sound as it was", text=damage.swap_words),
    "clipping": Degradation("12 dB too loud, cut off at full scale", lambda x, rate: damage.clipping(x, 12)),
}

# Each figure of a clip with the least difference that matters to a reader of it: "up" and "down" lie beyond it, "same" within.
MARGINS: dict[str, float] = {
    "wer": 0.02, "cer": 0.01,
    "mos_overall": 0.1, "mos_p808": 0.1, "mos_background": 0.1,
    "secs": 0.02, "f0_rmse": 50.0, "voicing_error": 0.02, "mcd": 0.5,
    "mel_l1": 0.05, "stft": 0.1, "si_sdr": 1.0, "stoi": 0.02, "pesq": 0.1,
    "seconds": 0.05, "pace": 0.25, "clipped": 0.0001,
    "kad_mel": 0.02, "fad_mel": 2.0, "kad_speaker": 0.02, "fad_speaker": 0.02,
}  # fmt: skip
SETS = ("kad_mel", "fad_mel", "kad_speaker", "fad_speaker")  # figures of the whole set rather than of a clip

_COPY_WORSE = {"up": "mel_l1 stft", "down": "si_sdr stoi pesq"}
_COPY_SAME = "mel_l1 stft si_sdr stoi pesq"
_SOUND = "mos_overall mos_p808 mos_background secs f0_rmse voicing_error mcd seconds pace clipped " + " ".join(SETS)


def _directions(up: str = "", down: str = "", same: str = "") -> dict[str, str]:
    names = {"up": up, "down": down, "same": same}
    return {metric: direction for direction, metrics in names.items() for metric in metrics.split()}


_NOISE = _directions(
    up="wer cer mcd voicing_error kad_mel fad_mel kad_speaker fad_speaker " + _COPY_WORSE["up"],
    down="mos_overall mos_p808 mos_background secs " + _COPY_WORSE["down"],
    same="seconds pace clipped",
)
_OTHER_VOICE = "wer cer f0_rmse mcd kad_speaker fad_speaker kad_mel " + _COPY_WORSE["up"]

# Reasoned before it was measured: what each figure says of itself, applied to the damage. A figure that is not named may do
# either: it says nothing about such damage, or reason does not tell.
EXPECTED: dict[str, dict[str, str]] = {
    "noise_20": _NOISE | {"f0_rmse": "same"},  # pitch trackers stand light noise
    "noise_10": _NOISE,
    "noise_0": _NOISE,
    "band_8k": _directions(
        up="wer cer mcd mel_l1 stft kad_mel fad_mel kad_speaker fad_speaker",
        down="mos_overall mos_p808 secs si_sdr pesq",
        # STOI listens below 4.3 kHz; nothing was added to the background, and pitch lies far below
        same="mos_background f0_rmse voicing_error stoi seconds pace clipped",
    ),
    "slower": _directions(
        up="seconds " + _COPY_WORSE["up"],  # time for time everything is elsewhere
        down="pace " + _COPY_WORSE["down"],
        same="mos_overall mos_background f0_rmse voicing_error clipped kad_mel fad_mel kad_speaker fad_speaker",
    ),
    "faster": _directions(
        up="wer cer pace " + _COPY_WORSE["up"],
        down="seconds " + _COPY_WORSE["down"],
        same="mos_overall mos_background f0_rmse voicing_error clipped kad_mel fad_mel kad_speaker fad_speaker",
    ),
    "tape_slower": _directions(
        up="seconds " + _OTHER_VOICE, down="pace secs " + _COPY_WORSE["down"], same="mos_background clipped"
    ),
    "tape_faster": _directions(
        up="pace " + _OTHER_VOICE, down="seconds secs " + _COPY_WORSE["down"], same="mos_background clipped"
    ),
    "pitch_up": _directions(
        up=_OTHER_VOICE, down="secs " + _COPY_WORSE["down"], same="mos_background seconds pace clipped"
    ),
    "pitch_down": _directions(
        up=_OTHER_VOICE, down="secs " + _COPY_WORSE["down"], same="mos_background seconds pace clipped"
    ),
    "truncated": _directions(
        up="wer cer mcd pace",  # the same text in less time
        down="seconds",
        # what is there is untouched, and time for time is over the shorter clip: these must not see it
        same="mos_overall mos_p808 mos_background clipped kad_mel fad_mel kad_speaker fad_speaker " + _COPY_SAME,
    ),
    "swapped_words": _directions(up="wer cer", same=f"{_SOUND} {_COPY_SAME}"),
    "clipping": _directions(
        up="wer cer clipped mcd kad_mel fad_mel kad_speaker fad_speaker " + _COPY_WORSE["up"],
        down="mos_overall mos_p808 secs " + _COPY_WORSE["down"],
        same="f0_rmse voicing_error seconds pace",
    ),
}

# Where what was found is not what was expected, and why: `flowtts benchmark judges` prints these beside its findings, and the
# tests do not ask for them.
_FILLED = "Pace counts time that is not silent (above 40 dB below the loudest frame); noise fills the pauses."
_STRETCHED = "DNSMOS hears the stretching itself as damage."
_STANDS = "pocketsphinx understands this as well, or as badly."
_EDGES = "Along the time warp, stretched edges of voiced sounds meet their neighbours."
_REPEATED = "DNSMOS hears other seconds: a clip under 9 s is repeated, now more often and with a cut in a word."
WHY: dict[tuple[str, str], str] = {
    ("noise_20", "pace"): _FILLED,
    ("noise_10", "pace"): _FILLED,
    ("noise_0", "pace"): _FILLED,
    ("band_8k", "pace"): "Fricatives lie above 4 kHz; without that band their frames count as silent.",
    ("band_8k", "mos_overall"): "DNSMOS's P.835 hardly reacts to a missing band; P.808, SECS and PESQ do.",
    ("band_8k", "mos_background"): "Recorded hiss above 4 kHz goes too.",
    ("band_8k", "voicing_error"): "Without the hiss, pYIN takes other frames for voiced.",
    ("slower", "mos_overall"): _STRETCHED,
    ("slower", "mos_background"): _STRETCHED,
    ("slower", "voicing_error"): _EDGES,
    ("faster", "mos_overall"): _STRETCHED,
    ("faster", "mos_background"): _STRETCHED,
    ("faster", "voicing_error"): _EDGES,
    ("faster", "wer"): _STANDS,
    ("faster", "cer"): _STANDS,
    ("pitch_down", "wer"): _STANDS,
    ("pitch_down", "cer"): _STANDS,
    ("truncated", "mos_overall"): _REPEATED,
    ("truncated", "mos_p808"): _REPEATED,
    ("truncated", "mos_background"): _REPEATED,
    ("clipping", "pace"): "Overdriving brings quiet frames nearer to the loudest, so fewer count as silent.",
    (
        "truncated",
        "pesq",
    ): "PESQ aligns the whole of both clips and so notices the missing end; over the shorter length it is 4.64.",
}
