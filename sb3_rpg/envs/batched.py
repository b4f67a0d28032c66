"""What the batched environments of this package share: Stable-Baselines3's side of a vectorised environment without parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.seeding import np_random
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_rpg.envs import raster


class BatchedVecEnv(VecEnv):
    """
    ``n_envs`` copies of an environment that one batched core moves at once.

    Episodes end by truncation alone. There are no sub-environments to call, and attributes are shared by all copies. Episode
    statistics are left to ``VecMonitor``.

    :param n_envs: number of copies
    :param observation_space: observation space of a copy
    :param action_space: action space of a copy
    :param max_episode_steps: length of an episode
    :param render_mode: ``"rgb_array"`` or ``None``
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        n_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int,
        render_mode: str | None,
    ) -> None:
        if n_envs < 1:
            raise ValueError(f"n_envs must be at least 1, got {n_envs}")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}; leave it out for the task's own")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}; pick one of them")
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode  # read back by the base class while it initialises
        super().__init__(n_envs, observation_space, action_space)
        self._rngs = [np_random()[0] for _ in range(n_envs)]
        self._elapsed = np.zeros(n_envs, dtype=np.int64)
        self._actions: np.ndarray = np.zeros((n_envs, *(action_space.shape or ())))

    # ------------------------------------------------------------------ what a task defines

    @abstractmethod
    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Move every copy once; observations (n_envs, d), rewards (n_envs,) in float32, infos."""

    @abstractmethod
    def _restart(self, indices: np.ndarray) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Start an episode in some copies; their observations, and their infos."""

    @abstractmethod
    def _task_state(self) -> dict[str, Any]:
        """Copies of what decides how the task goes on, beside clocks and random generators."""

    @abstractmethod
    def _load_task_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`_task_state`."""

    @abstractmethod
    def _image(self, index: int) -> raster.Image:
        """Draw a copy."""

    # ------------------------------------------------------------------ Stable-Baselines3's interface

    def reset(self) -> np.ndarray:
        """
        Start an episode in every copy. Seeds given with :meth:`seed` are used up here.

        :return: observations of shape (n_envs, d)
        """
        for i, seed in enumerate(self._seeds):
            if seed is not None:
                self._rngs[i] = np_random(seed)[0]
        self._reset_seeds()
        self._reset_options()
        return self._begin(np.arange(self.num_envs))

    def step_async(self, actions: np.ndarray) -> None:
        """
        Keep the actions for :meth:`step_wait`.

        :param actions: shape (n_envs, action_dim), clipped to [-1, 1]
        """
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """
        Move every copy once and restart those whose time is up.

        :return: observations (n_envs, d), rewards (n_envs,), dones (n_envs,), infos; a done copy's observation is that of its
            new episode, the last one of the old episode is ``infos[i]["terminal_observation"]``
        :raises ValueError: if the shape is wrong or an action is NaN or infinite
        """
        observations, rewards, infos = self._advance(self._actions)
        self._elapsed += 1
        dones = self._elapsed >= self.max_episode_steps
        for info, done in zip(infos, dones.tolist(), strict=True):
            info["TimeLimit.truncated"] = done
        if dones.any():
            done_indices = np.flatnonzero(dones)
            for i in done_indices:
                infos[i]["terminal_observation"] = observations[i].copy()
            observations[done_indices] = self._begin(done_indices)
        return observations, rewards, dones, infos

    def _begin(self, indices: np.ndarray) -> np.ndarray:
        observations, infos = self._restart(indices)
        self._elapsed[indices] = 0
        for i, info in zip(indices, infos, strict=True):
            self.reset_infos[i] = info
        return observations

    def state_dict(self) -> dict[str, Any]:
        """
        :return: all that decides how the copies go on: the task's state, clocks and random generators
        """
        return {
            **self._task_state(),
            "elapsed": self._elapsed.copy(),
            "random": [rng.bit_generator.state for rng in self._rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where another object was; no :meth:`reset` is needed.

        :param state: from :meth:`state_dict`
        :raises ValueError: if it is of another number of copies
        """
        if len(state["elapsed"]) != self.num_envs:
            raise ValueError(f"state is of {len(state['elapsed'])} copies of the environment, this object has {self.num_envs}")
        self._load_task_state(state)
        self._elapsed[:] = state["elapsed"]
        for rng, random_state in zip(self._rngs, state["random"], strict=True):
            rng.bit_generator.state = random_state

    def get_images(self) -> Sequence[raster.Image | None]:
        """
        Draw every copy.

        :return: RGB images, or ``None`` for each copy without a render mode
        """
        return [None if self.render_mode is None else self._image(i) for i in range(self.num_envs)]

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
            f"{type(self).__name__} has no sub-environments to call {method_name!r} on; "
            "call it on the vectorised environment itself or use a DummyVecEnv of single environments"
        )

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """
        Whether the copies are wrapped: never.

        :param wrapper_class: ignored
        :param indices: copies to ask for, all when ``None``
        :return: ``False`` once a copy
        """
        return [False for _ in self._get_indices(indices)]
