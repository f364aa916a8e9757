"""`flowtts distill`: a voice or a vocoder of few steps, taught by itself, and how natural a voice is by steps."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowtts_core.errors import ConfigError
from jobs.prepare import parse_settings
from jobs.train import Trained, add_run_options, train, workers_of

if TYPE_CHECKING:
    from flowtts_core.voice.card import VoiceCard

JUDGED_STEPS = (0, 1, 2, 4)
JUDGED_TEXTS = 24


METHODS = {"mean": "distillation", "guided": "guided_distillation", "consistency": "acoustic_consistency"}
"""Names of recipes by `--how`."""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "distill",
        help="teach a voice or a vocoder to take fewer steps",
        description="Teach the flow of a voice to take a few steps where it took many: a copy of its velocity net learns from"
        " the voice itself. Text encoder, durations and vocoder stay as they are, and the guidance of a guided voice goes into"
        " the new one, which needs no second call for it. The data are those that the voice was trained on, or others"
        " prepared alike (its features, its front end, its speakers). At the end the naturalness of both is measured by"
        " steps (needs pip install 'flowtts[eval]') and written into the new voice's card; voices that speak as a prompt does"
        " are not judged here. A vocoder that is a flow on the waveform (WaveFM) is taught to take one step, by consistency"
        " distillation, and is not judged either. A run that was interrupted goes on when the same command is run again.",
        epilog="ways (--how):\n"
        "  mean         each long step is the mean of the teacher's small ones: the default of voices without guidance\n"
        "  guided       two guided steps of the teacher in one, then of an average of the student (ZipVoice-Distill): the\n"
        "               default of guided voices that are to take several steps; any number works afterwards\n"
        "  consistency  the end of the teacher's path from anywhere on it: one step; the default of guided voices and vocoders\n"
        "examples:\n"
        "  flowtts distill voices/amy data/ -o voices/amy-fast              # one step\n"
        "  flowtts distill voices/zipvoice data/ -o voices/zipvoice-fast --steps 4\n"
        "  flowtts distill vocoders/wavefm data/ -o vocoders/wavefm-fast    # a vocoder's folder",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "voice", help="a bundled flow voice's name, its folder, or an s3:// place; or a vocoder's folder or s3:// place"
    )
    parser.add_argument("data", help="folder or s3:// place made by `flowtts prepare`; the workers must see it")
    parser.add_argument("-o", "--output", required=True, help="folder or s3:// place of what is made")
    parser.add_argument("--steps", type=int, choices=(1, 2, 4, 8), default=1, help="that it will take (default: 1)")
    parser.add_argument(
        "--how", choices=tuple(METHODS), help="by which of the ways below (default: by the kind of voice)"
    )
    parser.add_argument("--updates", type=int, help="optimiser steps of the training (default: the recipe's)")
    parser.add_argument("--texts", type=Path, help="what both are judged on, as of `flowtts benchmark synthesis`")
    parser.add_argument(
        "--judged",
        type=int,
        help=f"the last so many of the texts; 0 for none (default: {JUDGED_TEXTS})",
    )
    add_run_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if _is_vocoder(args.voice):
        return _distill_vocoder(args)
    from flowtts_core.voice.card import find_voice, found_anywhere, require_flow
    from jobs.benchmarks.quality import naturalness_by_steps, require_judge
    from jobs.benchmarks.speed import read_texts

    card = require_flow(args.voice, "distilled")
    how = method_of(card, args.steps, args.how)
    judged = _judged(args, card)
    texts = [text for _, text in read_texts(args.texts)][-judged:] if judged else []
    if texts:
        require_judge()  # before hours of training
    voice = args.voice if found_anywhere(args.voice) else str(find_voice(args.voice).absolute())
    steps = {} if how == "consistency" else {"how.steps": args.steps}
    made = _train(args, METHODS[how], {"teacher": voice, "vocoder": voice, **steps})
    table = naturalness_by_steps({"before": voice, "distilled": args.output}, texts, JUDGED_STEPS) if texts else []
    if table and not found_anywhere(args.output):
        _note(Path(args.output), table, args)
    if args.json:
        print(json.dumps({**asdict(made), "how": how, "naturalness": table}))
        return 0
    print(f"{made.output}: speaks in {args.steps} step{'s' * (args.steps > 1)}, distilled by {how}")
    _show(table, "it speaks as a prompt does" if card.prompt == "required" else "--judged 0")
    return 0


def method_of(card: VoiceCard, steps: int, how: str | None) -> str:
    """Return the way of distillation that a voice is distilled by, of `METHODS`.

    Raises:
        ConfigError: for a way that does not lead to so many steps.
    """
    from flowtts_core.acoustic import ACOUSTIC_MODELS

    name = card.parts["acoustic"]["name"]
    guided = name in ACOUSTIC_MODELS and bool(getattr(ACOUSTIC_MODELS[name][1], "guided", False))
    if how is None:
        how = ("consistency" if steps == 1 else "guided") if guided else "mean"
    if how == "consistency" and steps != 1:
        raise ConfigError(
            f"--how consistency --steps {steps}: it leads to one step", "leave --steps out, or use mean or guided"
        )
    return how


def _judged(args: argparse.Namespace, card: VoiceCard) -> int:
    """Return how many texts to judge; raises ConfigError for those that are asked of a voice that needs a prompt."""
    if card.prompt != "required":
        return JUDGED_TEXTS if args.judged is None else int(args.judged)
    if args.judged or args.texts is not None:
        raise ConfigError(
            f"--texts, --judged: {card.name} speaks as a prompt does, and is not judged here",
            "leave them out, and use flowtts evaluate with prompts",
        )
    return 0


def _is_vocoder(place: str) -> bool:
    from cluster.storage import Storage, is_remote
    from flowtts_core.vocoder.files import CARD

    return CARD in Storage(place).list() if is_remote(place) else Path(place, CARD).is_file()


def _distill_vocoder(args: argparse.Namespace) -> int:
    from cluster.storage import is_remote

    if args.steps != 1:
        raise ConfigError(f"--steps {args.steps}: a vocoder is distilled to one step", "leave it out")
    if args.how not in (None, "consistency"):
        raise ConfigError(f"--how {args.how}: a vocoder is distilled by consistency", "leave it out")
    if args.texts is not None or args.judged is not None:
        raise ConfigError("--texts, --judged: a vocoder reads no texts", "leave them out")
    place = args.voice if is_remote(args.voice) else str(Path(args.voice).absolute())
    made = _train(args, "consistency", {"teacher": place})
    print(json.dumps(asdict(made)) if args.json else f"{made.output}: takes 1 step")
    return 0


def _train(args: argparse.Namespace, name: str, own: dict[str, Any]) -> Trained:
    from jobs.training.recipes import recipe

    settings: dict[str, Any] = {**parse_settings(args.settings), **own}
    if args.updates is not None:
        settings["trainer.steps"] = args.updates
    workers = None if args.workers is None else workers_of(args.workers)
    return train(
        args.data,
        args.output,
        recipe(name, settings),
        workers=workers,
        device=args.device,
        address=args.address,
        quiet=args.json,
    )


def _note(folder: Path, table: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write the table into the card."""
    from flowtts_core.voice.card import load_card, write_card

    card = load_card(folder)
    command = f"flowtts distill {Path(args.voice).name} --steps {args.steps}"
    write_card(folder, replace(card, scores={**card.scores, "distillation": {"command": command, "rows": table}}))


def _show(table: Sequence[dict[str, Any]], why_not: str) -> None:
    from rich.console import Console
    from rich.table import Table

    if not table:
        print(f"not judged: {why_not}", file=sys.stderr)
        return
    shown = Table("voice", "steps", "naturalness", "95 %", title=f"{table[0]['n']} texts; 0 steps is the prior alone")
    for row in table:
        value = row["naturalness"]
        shown.add_row(
            row["voice"], str(row["steps"]), f"{value['value']:.2f}", f"{value['low']:.2f} to {value['high']:.2f}"
        )
    Console().print(shown)
