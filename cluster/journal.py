"""Finds the item that kills its worker: notes, beside a shard's output, how often the shard was begun and died over which item.

Ray Data restarts a dead worker and gives it the same shard, without end. So after `CAREFUL_AFTER` deaths over a shard its items
are taken one by one, each noted before it is touched; one that stood there at `DEADLY_AFTER` deaths is to be set aside.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from typing import Any

from cluster.storage import Storage
from flowtts_core.errors import FlowTTSError

CAREFUL_AFTER = 2
DEADLY_AFTER = 2  # a single death over an item may be the machine's (memory that another process took)
_SPARE_STARTS = 4  # beyond those that the items may cost


class Journal:
    """One shard's journal, from the start of its work to `close`.

    Args:
        name: of its file in the output.
        run: names this run of the job, so that a worker's deaths are not mistaken for an earlier run's end.
        items: how many the shard has.

    Attributes:
        starts: how often this run began the shard, this time included.
        careful: whether to take the items one by one, calling `enter` before each.
        deadly: items over which workers died.

    Raises:
        FlowTTSError: when workers died over the shard more often than its items account for.
    """

    def __init__(self, output: Storage, name: str, run: str, items: int) -> None:
        self._output, self._name = output, name
        before: dict[str, Any] = {}
        if output.exists(name):
            before = json.loads(output.read(name) or b"{}")
        if before.get("run") != run:
            before = {"run": run, "starts": 0, "deaths": {}, "item": None}
        self.starts: int = before["starts"] + 1
        deaths = Counter(before["deaths"])
        deaths.update([before["item"]] if before["item"] else [])
        self.careful = self.starts > CAREFUL_AFTER
        self.deadly = {item for item, count in deaths.items() if count >= DEADLY_AFTER}
        self._state = {"run": run, "starts": self.starts, "deaths": deaths, "item": None}
        self._save()
        if self.starts > DEADLY_AFTER * items + CAREFUL_AFTER + _SPARE_STARTS:
            raise FlowTTSError(
                f"workers died {self.starts - 1} times over {name}", "is there memory enough? try fewer --workers"
            )

    def enter(self, item: str) -> None:
        """Note the item that is touched next."""
        self._state["item"] = item
        self._save()

    def close(self) -> None:
        """The shard is committed."""
        self._output.delete(self._name)

    def _save(self) -> None:
        self._output.write(self._name, json.dumps(self._state).encode())


def drop_journals(output: Storage, folder: str, names: Collection[str]) -> None:
    """Delete these journals in a folder of the output: a run that was killed between commit and `close` left them."""
    for name in output.list(folder):
        if name in names:
            output.delete(f"{folder}/{name}" if folder else name)
