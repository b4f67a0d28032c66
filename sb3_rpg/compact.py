"""Replay buffers whose files are as large as what is stored in them, not as what would fit."""

from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

#: entry of the pickled state: number of rows kept, names of the arrays that were shortened to them
SHORTENED = "_shortened"


class CompactReplayBuffer(ReplayBuffer):
    """
    What SB3's replay buffers pickle, without the rows that are not filled yet.

    They are zeros, which take no memory but on disk: with images, tens of gigabytes at the first checkpoint of a run. A
    loaded buffer takes its memory as it is filled, as a new one does.
    """

    def __getstate__(self) -> dict[str, Any]:
        parent = getattr(super(), "__getstate__", None)  # `object` has it from Python 3.11 on
        state = dict(self.__dict__ if parent is None else parent())
        if self.full:
            return state
        names = [name for name, value in state.items() if self._is_record(value)]
        for name in names:
            state[name] = _map(state[name], lambda array: array[: self.pos])
        return {**state, SHORTENED: (self.pos, names)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        rows, names = state.pop(SHORTENED, (0, []))
        n_rows = state["buffer_size"]

        def lengthened(array: np.ndarray) -> np.ndarray:
            whole = np.zeros((n_rows, *array.shape[1:]), dtype=array.dtype)
            whole[:rows] = array
            return whole

        for name in names:
            state[name] = _map(state[name], lengthened)
        parent = getattr(super(), "__setstate__", None)
        if parent is None:
            self.__dict__.update(state)
        else:
            parent(state)

    def _is_record(self, value: Any) -> bool:
        """Whether something has an entry for each place of the buffer."""
        if isinstance(value, dict):
            return len(value) > 0 and all(self._is_record(part) for part in value.values())
        return isinstance(value, np.ndarray) and value.shape[:2] == (self.buffer_size, self.n_envs)


def _map(record: Any, function: Any) -> Any:
    return {key: _map(part, function) for key, part in record.items()} if isinstance(record, dict) else function(record)
