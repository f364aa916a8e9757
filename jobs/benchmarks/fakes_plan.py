"""The plan of a study of synthetic speech: who is heard, who is kept for the test, and which engines are akin."""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtts_core.config import from_dict
from flowtts_core.errors import ConfigError

_EACH = 4  # of an engine's clips without tests of their own every fourth is kept for the test


@dataclass(frozen=True)
class People:
    """Recordings of people.

    Attributes:
        clips: patterns of files, relative to the plan.
        windows: how many are drawn from them for training.
        most: of the clips, evenly over their names.
    """

    name: str
    clips: tuple[str, ...]
    windows: int = 0
    most: int = 400


@dataclass(frozen=True)
class Engine:
    """Speech of one engine.

    Attributes:
        family: of engines that are akin, and left out together.
        clips: patterns of files, relative to the plan.
        tests: patterns of the files that it is tested on; without any, a quarter of `clips`, which are not trained on.
        taught_by: families whose speech it imitates: it is not heard either where they are left out.
        windows: how many are drawn from them for training.
        most, most_tests: of the clips, evenly over their names.
    """

    name: str
    family: str
    clips: tuple[str, ...]
    tests: tuple[str, ...] = ()
    taught_by: tuple[str, ...] = ()
    windows: int = 300
    most: int = 200
    most_tests: int = 40


@dataclass(frozen=True)
class Plan:
    """What is heard and measured.

    Attributes:
        humans: whom the net hears.
        readers: whom it never hears: a clip's reader is named by its folder.
        folds: families, each list of which is left out together.
        licence, source: of what it is trained on, for the card.
    """

    humans: tuple[People, ...]
    readers: tuple[People, ...]
    engines: tuple[Engine, ...]
    folds: tuple[tuple[str, ...], ...]
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not (self.humans and self.readers and self.engines and self.folds):
            raise ConfigError("the plan lacks humans, readers, engines or folds", "name one or more of each")
        families, named = {engine.family for engine in self.engines}, [name for fold in self.folds for name in fold]
        if sorted(named) != sorted(families):
            raise ConfigError(
                f"the folds leave out {sorted(named)}, and the engines' families are {sorted(families)}",
                "name each family in one fold",
            )
        names = [*(one.name for one in self.humans), *(one.name for one in self.engines)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"two sources are named {twice}", "rename one of them")

    def without(self, fold: Sequence[str]) -> list[str]:
        """Return the engines that are not heard where these families are left out."""
        return [one.name for one in self.engines if {one.family, *one.taught_by} & set(fold)]


def read_plan(path: Path) -> Plan:
    """Read a plan, in TOML.

    Raises:
        ConfigError: for what is no plan.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "give a plan in TOML; see docs/watermark.md") from error
    plan: Plan = from_dict(Plan, values)
    return plan


def files_of(root: Path, patterns: Sequence[str], most: int) -> list[Path]:
    """Return files of patterns, at most so many, evenly over their names.

    Raises:
        ConfigError: for a pattern without files.
    """
    found: list[str] = []
    for pattern in patterns:
        own = glob.glob(str(root / pattern))
        if not own:
            raise ConfigError(f"{pattern}: no files", f"paths are relative to the plan, in {root}")
        found += own
    found = sorted(set(found))
    step = max(1, -(-len(found) // most))
    return [Path(name) for name in found[::step]]


def clips_of(root: Path, engine: Engine) -> tuple[list[Path], list[Path]]:
    """Return an engine's clips to train on, and to test on."""
    clips = files_of(root, engine.clips, engine.most)
    if engine.tests:
        return clips, files_of(root, engine.tests, engine.most_tests)
    tests = clips[::_EACH]
    return [clip for clip in clips if clip not in set(tests)], tests[: engine.most_tests]
