"""The maze as a Stable-Baselines3 vectorised environment that moves all its agents at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_rpg.envs import raster
from sb3_rpg.envs.batched import BatchedVecEnv
from sb3_rpg.envs.maze import RewardKind, at_goal, check_maze_options, draw_start, maze_image, maze_observation, maze_spaces
from sb3_rpg.envs.maze_core import EPISODE_LENGTH, MazeCore
from sb3_rpg.envs.maze_layout import N_CELLS, FloatArray, Passage, cells_of


class MazeVecEnv(BatchedVecEnv):
    """
    ``n_envs`` copies of :class:`~sb3_rpg.envs.maze.MazeEnv` on one batched core.

    It gives the same observations, rewards and dones as a ``DummyVecEnv`` of ``RPGMaze-v0``, several times faster.
    Two things differ: ``info["coverage"]`` is that of all copies together, which is the metric of Fig. 8 when training
    runs on this object alone, and there are no sub-environments to call. Episode statistics are left to ``VecMonitor``.

    :param n_envs: number of copies; the paper uses 5
    :param reward: see :class:`~sb3_rpg.envs.maze.MazeEnv`
    :param start_noise: see :class:`~sb3_rpg.envs.maze.MazeEnv`
    :param max_episode_steps: length of an episode, which ends by truncation
    :param render_mode: ``"rgb_array"`` or ``None``
    :param blocked: see :class:`~sb3_rpg.envs.maze.MazeEnv`
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        n_envs: int = 5,
        reward: RewardKind = "none",
        start_noise: float = 0.0,
        max_episode_steps: int = EPISODE_LENGTH,
        render_mode: str | None = None,
        blocked: Sequence[Passage] = (),
    ) -> None:
        super().__init__(n_envs, *maze_spaces(), max_episode_steps, render_mode)
        check_maze_options(reward, start_noise)
        self.reward = reward
        self.start_noise = start_noise
        self.core = MazeCore(n_envs, blocked)
        self.visited = np.zeros(N_CELLS, dtype=bool)
        """Cells visited by any copy so far, shape (100,)."""

    @property
    def coverage(self) -> float:
        """Share of the 100 cells visited by any copy so far."""
        return int(np.count_nonzero(self.visited)) / N_CELLS

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations = maze_observation(self.core.step(actions))
        infos = self._visit()
        return observations, np.array([info.get("is_success", False) for info in infos], dtype=np.float32), infos

    def _restart(self, indices: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        starts = np.stack([draw_start(self._rngs[i], self.start_noise) for i in indices])
        positions = self.core.reset(indices, starts)
        infos = self._visit()
        return maze_observation(positions[indices]), [infos[i] for i in indices]

    def _visit(self) -> list[dict[str, Any]]:
        """Mark the current cells as visited and describe the state of every copy."""
        positions: FloatArray = self.core.positions
        cells = cells_of(positions)
        self.visited[cells] = True
        share = self.coverage
        infos: list[dict[str, Any]] = [
            {"position": position.copy(), "cell": cell, "coverage": share}
            for position, cell in zip(positions, cells.tolist(), strict=True)
        ]
        if self.reward != "none":
            for info, success in zip(infos, at_goal(self.reward, positions).tolist(), strict=True):
                info["is_success"] = success
        return infos

    def _task_state(self) -> dict[str, Any]:
        return {"positions": self.core.positions.copy(), "visited": self.visited.copy()}

    def _load_task_state(self, state: dict[str, Any]) -> None:
        self.core.reset(np.arange(self.num_envs), state["positions"])
        self.visited = state["visited"].copy()

    def _image(self, index: int) -> raster.Image:
        return maze_image(self.core.positions[index], self.visited, self.reward, self.core.blocked)
