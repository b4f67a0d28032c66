"""Draws stored transitions by how novel they are: a sum tree over the places of a replay buffer."""

from collections.abc import Iterator
from typing import Any

import numpy as np

#: what has been rated keeps a chance, however well it is known
_LEAST_NOVELTY = 1e-8


class SumTree:
    """
    Weights in the leaves of a binary tree whose nodes hold sums: changed and drawn from in O(log capacity), a batch at a time.

    :param capacity: number of weights, all 0 at first
    """

    def __init__(self, capacity: int):
        self._depth = max(0, (capacity - 1).bit_length())
        self._sums = np.zeros(2 << self._depth)

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._sums[1])

    def set(self, places: np.ndarray, weights: np.ndarray) -> None:
        """
        :param places: indices, (n,), n > 0; where one occurs twice, its last weight counts
        :param weights: of at least 0, (n,)
        """
        nodes = places + (1 << self._depth)
        self._sums[nodes] = weights
        for _ in range(self._depth):
            # Always from both children, never by a difference: the sums do not drift, and depend on the weights alone
            nodes = np.unique(nodes >> 1)
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]

    def sample(self, n: int) -> np.ndarray:
        """
        Draw in proportion to the weights, with replacement; one from each n-th of their sum, which spreads the draws.

        :param n: how many
        :return: indices in ascending order, (n,)
        """
        targets = (np.arange(n) + np.random.random(n)) * (self.total / n)
        nodes = np.ones(n, dtype=np.int64)
        for _ in range(self._depth):
            left = 2 * nodes
            below = self._sums[left]
            # Rounding may lead to the far end of a sum: never on to what has no weight
            right = (targets >= below) & (self._sums[left + 1] > 0.0)
            targets -= np.where(right, below, 0.0)
            nodes = left + right
        return nodes - (1 << self._depth)


class NoveltyIndex:
    """
    How novel each transition of a replay buffer was when it, or a segment that it begins, was last looked at.

    Curious Replay (Kauvar et al., ICML 2023) draws by counts and model errors; here it is the error of the intrinsic reward's
    own model, to a power.

    :param buffer_size: rows of the replay buffer
    :param n_envs: its columns
    :param exponent: the probability is in proportion to novelty to this power
    """

    def __init__(self, buffer_size: int, n_envs: int, exponent: float):
        self._shape = (buffer_size, n_envs)
        self._novelty = np.full(buffer_size * n_envs, np.nan, dtype=np.float32)
        #: rows with transitions that nobody has looked at
        self._unrated: dict[int, None] = {}
        self.exponent = exponent

    @property
    def exponent(self) -> float:
        """Power of the novelty that the probability is in proportion to."""
        return self._exponent

    @exponent.setter
    def exponent(self, value: float) -> None:
        self._exponent = value
        self._tree = SumTree(len(self._novelty))
        rated = np.flatnonzero(~np.isnan(self._novelty))
        if len(rated) > 0:
            self._weigh(rated)

    def __getstate__(self) -> dict[str, Any]:
        """Without the places that are not rated, and without what follows from the others."""
        rated = np.flatnonzero(~np.isnan(self._novelty))
        return {
            "shape": self._shape,
            "exponent": self._exponent,
            "unrated": list(self._unrated),
            "rated": rated,
            "novelty": self._novelty[rated],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._shape = state["shape"]
        self._novelty = np.full(self._shape[0] * self._shape[1], np.nan, dtype=np.float32)
        self._novelty[state["rated"]] = state["novelty"]
        self._unrated = dict.fromkeys(state["unrated"])
        self.exponent = state["exponent"]

    def forget(self, rows: np.ndarray) -> None:
        """
        :param rows: of transitions that are new; they must be rated before anything is drawn
        """
        self._unrated.update(dict.fromkeys(rows.tolist()))

    def take_unrated(self, n: int) -> Iterator[np.ndarray]:
        """
        :param n: rows at a time
        :return: flat places (row * n_envs + env) of all that is new, which from then on counts as looked at
        """
        rows = np.fromiter(self._unrated, dtype=np.int64)
        self._unrated.clear()
        for part in np.split(rows, range(n, len(rows), n)):
            if len(part) > 0:
                yield (part[:, None] * self._shape[1] + np.arange(self._shape[1])).ravel()

    def rate(self, places: np.ndarray, novelty: np.ndarray) -> None:
        """
        :param places: flat places, (n,)
        :param novelty: what they are now, of at least 0, (n,)
        """
        self._novelty[places] = novelty
        self._weigh(places)

    def _weigh(self, places: np.ndarray) -> None:
        novelty = self._novelty[places].astype(np.float64)
        self._tree.set(places, np.maximum(novelty, _LEAST_NOVELTY) ** self._exponent)

    def sample(self, n: int) -> np.ndarray:
        """
        :param n: how many
        :return: flat places, by novelty, with replacement, (n,)
        """
        return self._tree.sample(n)
