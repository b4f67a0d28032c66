"""Who went where in the plane: a sample of the visited states with their latents, small enough for git."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_rpg.envs import positions_of, push_positions_of

#: states kept, in whole episodes
MAX_STATES = 20_000

Positions = Callable[[npt.ArrayLike], npt.NDArray[np.float64]]
#: (x, y) of observations, by the batched environment that has them, see :class:`~benchmarks.experiments.Task`
POSITIONS: dict[str, Positions] = {"maze": positions_of, "push": push_positions_of}


def save_visits(path: Path, model: BaseAlgorithm, positions_of: Positions) -> None:
    """
    Write evenly spaced episodes of the replay buffer: ``positions`` (N, 2), ``episodes`` (N,) the index of each position's
    episode, ``steps`` (E,) the environment step that an episode began at, ``latents`` (E, d) its z. Positions are float16, for
    pictures: one just before a wall lies on its line, so that rooms should be counted a hundredth inside their walls.

    :param path: the file
    :param model: a model whose replay buffer still holds the whole training; others are passed over
    :param positions_of: (x, y) of observations
    """
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None or buffer.optimize_memory_usage or buffer.full:
        return
    n_rows, n_envs = buffer.size(), buffer.n_envs
    observations, next_observations = buffer.observations[:n_rows], buffer.next_observations[:n_rows]
    starts = np.ones((n_rows, n_envs), dtype=bool)
    # Also where training was resumed, which resets the environments without a `done`
    starts[1:] = (buffer.dones[: n_rows - 1] > 0) | (observations[1:] != next_observations[:-1]).any(axis=-1)
    rows, envs = np.nonzero(starts)
    # The ends of each environment's episodes are the starts of its next ones
    ends = np.empty_like(rows)
    for env in range(n_envs):
        mine = np.flatnonzero(envs == env)
        ends[mine] = np.append(rows[mine[1:]], n_rows)
    mean_length = (ends - rows).mean()
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), max(1, int(MAX_STATES / mean_length)))).astype(int))
    positions = [positions_of(next_observations[rows[i] : ends[i], envs[i]]) for i in chosen]
    arrays = {
        "positions": np.concatenate(positions).astype(np.float16),
        "episodes": np.repeat(np.arange(len(chosen)), [len(part) for part in positions]).astype(np.uint16),
        "steps": (rows[chosen] * n_envs).astype(np.int32),
    }
    latents = getattr(buffer, "latents", None)
    if latents is not None and latents.shape[-1] > 0:
        arrays["latents"] = latents[rows[chosen], envs[chosen]].astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


class Visits(NamedTuple):
    """What :func:`save_visits` has written of a run."""

    #: (x, y) of the visited states, episode after episode, (N, 2)
    positions: npt.NDArray[np.float64]
    #: episode of each of them, (N,)
    episodes: npt.NDArray[np.int64]
    #: environment step that each episode began at, ascending, (E,)
    steps: npt.NDArray[np.int64]
    #: z of each episode, (E, d); None where there is none
    latents: npt.NDArray[np.float64] | None

    def episodes_between(self, first: int, last: int) -> npt.NDArray[np.int64]:
        """
        :param first: environment step
        :param last: a later one
        :return: the episodes that began in the meantime, the first step included, (K,)
        """
        return np.flatnonzero((self.steps >= first) & (self.steps < last))

    def trajectories(self, episodes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """
        :param episodes: K episodes
        :return: their positions, (K, T, 2); an episode that is shorter than the longest one rests at its end
        """
        parts = [self.positions[self.episodes == episode] for episode in np.asarray(episodes).tolist()]
        longest = max((len(part) for part in parts), default=0)
        padded = [np.concatenate([part, np.repeat(part[-1:], longest - len(part), axis=0)]) for part in parts]
        return np.stack(padded) if padded else np.zeros((0, 0, 2))


def load_visits(path: Path) -> Visits:
    """
    :param path: a file of :func:`save_visits`
    :return: its content
    """
    with np.load(path) as arrays:
        latents = arrays["latents"].astype(np.float64) if "latents" in arrays else None
        return Visits(
            arrays["positions"].astype(np.float64),
            arrays["episodes"].astype(np.int64),
            arrays["steps"].astype(np.int64),
            latents,
        )
