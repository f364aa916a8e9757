"""Find the item that kills its worker: a note beside a job's output says how often a shard was begun and over which item it died.

Ray restarts a dead worker and gives it the same shard, without end. The first death over a shard may be its machine's fault: the
shard is done again in the same batches, and so sounds the same. After the second its items are taken one by one, each noted
first. The first item over which the worker dies then is set aside, after three tries in all. A later item is set aside at its
second death, since the earlier deaths may all have been the first item's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from cluster.storage import Storage
from flowtts_core.errors import FlowTTSError

CAREFUL_AFTER = 2
DEADLY_AFTER = 2  # deaths over an item alone, but for the first item
_SPARE_STARTS = 20  # beyond those that the items may cost: spot machines come and go


class Journal:
    """One shard's journal in one stage of the work, from its start to `close`.

    Args:
        name: of its file in the output.
        run: names this run of the job, so that a worker's deaths are not mistaken for an earlier run's end.
        items: how many the shard has.

    Attributes:
        starts: how often this run began the shard, this time included.
        careful: whether to take the items one by one, calling `enter` before each.
        deadly: items over which workers died, with the reason as far as it is known.

    Raises:
        FlowTTSError: when workers died over the shard more often than its items account for.
    """

    def __init__(self, output: Storage, name: str, run: str, items: int) -> None:
        self._output, self._name = output, name
        before = self._before(run)
        self.starts: int = before["starts"] + 1
        deaths, reasons = Counter[str](before["deaths"]), dict[str, str](before["reasons"])
        if before["item"]:
            deaths[before["item"]] += 1
            reasons[before["item"]] = before["why"]
        self.careful = self.starts > CAREFUL_AFTER
        first = next(iter(deaths), None)
        dead = [item for item, count in deaths.items() if item == first or count >= DEADLY_AFTER]
        self.deadly = {item: reasons.get(item, "") for item in dead}
        self._state = {"run": run, "starts": self.starts, "deaths": deaths, "reasons": reasons, "item": None, "why": ""}
        self._save()
        if self.starts > DEADLY_AFTER * items + CAREFUL_AFTER + _SPARE_STARTS:
            raise FlowTTSError(
                f"workers died {self.starts - 1} times over {name}", "is there memory enough? try fewer --workers"
            )

    def _before(self, run: str) -> dict[str, Any]:
        fresh = {"run": run, "starts": 0, "deaths": {}, "reasons": {}, "item": None, "why": ""}
        try:
            found = json.loads(self._output.read(self._name) or b"{}")
        except (FileNotFoundError, ValueError):
            return fresh
        return found if found.get("run") == run and fresh.keys() <= found.keys() else fresh

    def enter(self, item: str) -> None:
        """Note the item that is touched next."""
        self._state["item"] = item
        self._save()

    def note_end(self, why: str) -> None:
        """Note why the process is about to end."""
        self._state["why"] = why
        self._save()

    def close(self) -> None:
        """Delete the journal, once the shard has passed this stage."""
        self._output.delete(self._name)

    def _save(self) -> None:
        self._output.write(self._name, json.dumps(self._state).encode(), durable=False)


def drop_journals(output: Storage, folder: str, names: Collection[str]) -> None:
    """Delete these journals in a folder of the output: a run that was killed between commit and `close` left them."""
    for name in output.list(folder):
        if name in names:
            output.delete(f"{folder}/{name}" if folder else name)
