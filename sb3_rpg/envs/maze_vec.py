"""The maze as a Stable-Baselines3 vectorised environment that moves all its agents at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.seeding import np_random
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_rpg.envs import raster
from sb3_rpg.envs.maze import RewardKind, at_goal, check_maze_options, draw_start, maze_image, maze_observation, maze_spaces
from sb3_rpg.envs.maze_core import EPISODE_LENGTH, MazeCore
from sb3_rpg.envs.maze_layout import N_CELLS, FloatArray, Passage, cells_of


class MazeVecEnv(VecEnv):
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
        if n_envs < 1:
            raise ValueError(f"n_envs must be at least 1, got {n_envs}")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}; the paper uses 50")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; pick one of them")
        check_maze_options(reward, start_noise)
        self.reward = reward
        self.start_noise = start_noise
        self.max_episode_steps = max_episode_steps
        self.core = MazeCore(n_envs, blocked)
        self.visited = np.zeros(N_CELLS, dtype=bool)
        """Cells visited by any copy so far, shape (100,)."""
        self.render_mode = render_mode  # read back by the base class while it initialises
        super().__init__(n_envs, *maze_spaces())
        self._rngs = [np_random()[0] for _ in range(n_envs)]
        self._elapsed = np.zeros(n_envs, dtype=np.int64)
        self._actions: np.ndarray = np.zeros((n_envs, 2))

    @property
    def coverage(self) -> float:
        """Share of the 100 cells visited by any copy so far."""
        return int(np.count_nonzero(self.visited)) / N_CELLS

    def reset(self) -> np.ndarray:
        """
        Start an episode in every copy; what has been visited is kept. Seeds given with :meth:`seed` are used up here.

        :return: observations of shape (n_envs, 28)
        """
        for i, seed in enumerate(self._seeds):
            if seed is not None:
                self._rngs[i] = np_random(seed)[0]
        self._reset_seeds()
        self._reset_options()
        return self._restart(np.arange(self.num_envs))

    def step_async(self, actions: np.ndarray) -> None:
        """
        Keep the actions for :meth:`step_wait`.

        :param actions: shape (n_envs, 2), clipped to [-1, 1]
        """
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """
        Move every agent once and restart the copies whose time is up.

        :return: observations (n_envs, 28), rewards (n_envs,), dones (n_envs,), infos; a done copy's observation is that
            of its new episode, the last one of the old episode is ``infos[i]["terminal_observation"]``
        :raises ValueError: if the shape is wrong or an action is NaN or infinite
        """
        observations = maze_observation(self.core.step(self._actions))
        infos = self._visit()
        rewards = np.array([info.get("is_success", False) for info in infos], dtype=np.float32)
        self._elapsed += 1
        dones = self._elapsed >= self.max_episode_steps
        for info, done in zip(infos, dones.tolist(), strict=True):
            info["TimeLimit.truncated"] = done
        if dones.any():
            done_indices = np.flatnonzero(dones)
            for i in done_indices:
                infos[i]["terminal_observation"] = observations[i].copy()
            observations[done_indices] = self._restart(done_indices)
        return observations, rewards, dones, infos

    def _restart(self, indices: np.ndarray) -> np.ndarray:
        """Start an episode in some copies and return their observations."""
        starts = np.stack([draw_start(self._rngs[i], self.start_noise) for i in indices])
        positions = self.core.reset(indices, starts)
        self._elapsed[indices] = 0
        infos = self._visit()
        for i in indices:
            self.reset_infos[i] = infos[i]
        return maze_observation(positions[indices])

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

    def state_dict(self) -> dict[str, Any]:
        """
        :return: all that decides how the copies go on: positions, clocks, visited cells and random generators
        """
        return {
            "positions": self.core.positions.copy(),
            "elapsed": self._elapsed.copy(),
            "visited": self.visited.copy(),
            "random": [rng.bit_generator.state for rng in self._rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where another object was; no :meth:`reset` is needed.

        :param state: from :meth:`state_dict`
        :raises ValueError: if it is of another number of copies
        """
        if len(state["positions"]) != self.num_envs:
            raise ValueError(f"state is of {len(state['positions'])} copies of the maze, this object has {self.num_envs}")
        self.core.reset(np.arange(self.num_envs), state["positions"])
        self._elapsed[:] = state["elapsed"]
        self.visited = state["visited"].copy()
        for rng, random_state in zip(self._rngs, state["random"], strict=True):
            rng.bit_generator.state = random_state

    def get_images(self) -> Sequence[raster.Image | None]:
        """
        Draw every copy.

        :return: images of shape (432, 432, 3), or ``None`` for each copy without a render mode
        """
        if self.render_mode is None:
            return [None] * self.num_envs
        return [maze_image(position, self.visited, self.reward, self.core.blocked) for position in self.core.positions]

    def close(self) -> None:
        """There is nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        Read an attribute, which all copies share.

        :param attr_name: name of an attribute of this object
        :param indices: copies to read it for, all when ``None``
        :return: the same value once a copy
        :raises AttributeError: if there is no such attribute
        """
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Set an attribute of all copies.

        :param attr_name: name of the attribute
        :param value: its new value
        :param indices: ``None`` or all copies
        :raises ValueError: if only some copies are named
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ValueError(
                f"indices must be None, got {indices}: the copies share their attributes; use DummyVecEnv instead"
            )
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Refuse the call: there are no sub-environments.

        :param method_name: name of the method
        :param method_args: ignored
        :param indices: ignored
        :param method_kwargs: ignored
        :raises AttributeError: always
        """
        raise AttributeError(
            f"MazeVecEnv has no sub-environments to call {method_name!r} on; "
            "call it on the vectorised environment itself or use a DummyVecEnv of MazeEnv"
        )

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """
        Whether the copies are wrapped: never.

        :param wrapper_class: ignored
        :param indices: copies to ask for, all when ``None``
        :return: ``False`` once a copy
        """
        return [False for _ in self._get_indices(indices)]
