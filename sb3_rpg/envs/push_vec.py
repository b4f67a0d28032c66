"""The push task as a Stable-Baselines3 vectorised environment that moves all its robots at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from sb3_rpg.envs import raster
from sb3_rpg.envs.batched import BatchedVecEnv
from sb3_rpg.envs.push import (
    START_NOISE,
    check_start_noise,
    draw_start,
    outcomes,
    push_image,
    push_observation,
    push_spaces,
)
from sb3_rpg.envs.push_core import EPISODE_LENGTH, PushCore

_STATE = ("positions", "velocities", "boxes", "box_velocities")


class PushVecEnv(BatchedVecEnv):
    """
    ``n_envs`` copies of :class:`~sb3_rpg.envs.push.PushEnv` on one batched core.

    It gives the same observations, rewards, dones and infos as a ``DummyVecEnv`` of ``RPGPointPush-v0``, several times faster.

    :param n_envs: number of copies; the paper uses 5
    :param start_noise: see :class:`~sb3_rpg.envs.push.PushEnv`
    :param max_episode_steps: length of an episode, which ends by truncation
    :param render_mode: ``"rgb_array"`` or ``None``
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        n_envs: int = 5,
        start_noise: float = START_NOISE,
        max_episode_steps: int = EPISODE_LENGTH,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(n_envs, *push_spaces(), max_episode_steps, render_mode)
        check_start_noise(start_noise)
        self.start_noise = start_noise
        self.core = PushCore(n_envs)

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        self.core.step(actions)
        rewards, infos = outcomes(self.core)
        return push_observation(self.core), rewards.astype(np.float32), infos

    def _restart(self, indices: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        self.core.reset(indices, np.stack([draw_start(self._rngs[i], self.start_noise) for i in indices]))
        _, infos = outcomes(self.core)
        return push_observation(self.core)[indices], [infos[i] for i in indices]

    def _task_state(self) -> dict[str, Any]:
        return {name: getattr(self.core, name).copy() for name in _STATE}

    def _load_task_state(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self.core, name, state[name].copy())

    def _image(self, index: int) -> raster.Image:
        return push_image(self.core.positions[index], self.core.boxes[index])
