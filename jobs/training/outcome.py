"""How a training ended, noted in its run folder: finished, failed with the reason, or stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field

from flowtts_core.errors import DivergedError, FlowTTSError
from flowtts_core.training.files import Files, patiently

OUTCOME = "outcome.json"
FINISHED, DIVERGED, FAILED, STOPPED = "finished", "diverged", "failed", "stopped"


@dataclass(frozen=True)
class Outcome:
    """The end of a run's training, so far: another start takes it away.

    Attributes:
        state: "finished", "diverged" (a start from the same checkpoint would end alike), "failed" or "stopped".
        step: the last one.
        why, remedy: of a training that did not finish.
        since: validations in a row without a lower loss, of one that finished.
        time: seconds since 1970.
    """

    state: str
    step: int = 0
    why: str = ""
    remedy: str = ""
    since: int = 0
    time: float = field(default_factory=lambda: round(time.time(), 2))

    def require_sound(self) -> None:
        """Raise DivergedError where the training diverged."""
        if self.state == DIVERGED:
            raise DivergedError(self.why, self.remedy)


def read_outcome(files: Files) -> Outcome | None:
    """Return how a run ended; None where it has not."""
    try:
        return Outcome(**json.loads(patiently(lambda: files.read(OUTCOME), f"reading {files.path(OUTCOME)}")))
    except FileNotFoundError:
        return None


def note_outcome(files: Files, outcome: Outcome) -> None:
    data = (json.dumps(asdict(outcome), indent=1) + "\n").encode()
    patiently(lambda: files.write(OUTCOME, data), f"writing {files.path(OUTCOME)}")


@contextmanager
def noted(files: Files) -> Iterator[None]:
    """Take away how the run ended before, and note why what is done here does not come to its end."""
    files.delete(OUTCOME)
    try:
        yield
    except DivergedError:  # noted by the worker
        raise
    except BaseException as error:
        why, remedy = (error.message, error.remedy) if isinstance(error, FlowTTSError) else (_told(error), "")
        state = FAILED if isinstance(error, Exception) else STOPPED
        with suppress(Exception):  # a store out of reach must not hide the reason
            note_outcome(files, Outcome(state, why=why, remedy=remedy or "the same command goes on from here"))
        raise


def _told(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
