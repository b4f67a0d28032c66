"""Environments and models that the tests of several files share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rpg import RPG
from sb3_rpg.batches import PolicyBatch
from sb3_rpg.updates import update_actor

# More threads would only wait for each other at these sizes
th.set_num_threads(1)

#: networks that are as small as they can be without being degenerate
SMALL_POLICY: dict[str, Any] = {"net_arch": [16, 16], "hidden_dim": 16, "state_dim": 8}

SMALL: dict[str, Any] = {
    "policy_kwargs": SMALL_POLICY,
    "batch_size": 8,
    "learning_starts": 10,
    "buffer_size": 1000,
    "train_freq": 1,
    "latent_dim": 3,
    "intrinsic_batch_size": 8,
    "intrinsic_reward_kwargs": {"width": 8, "warmup_updates": 2},
    "precision": "fp32",
    "device": "cpu",
    "seed": 0,
}


class LabelledEnv(gym.Env):
    """
    Observations that say where they come from: (environment, episode, step), all counted from 0. The reward of a step is
    its number, from 1, times ``reward``.

    :param env_id: first number of every observation
    :param lengths: lengths of the episodes, in turn
    :param terminates: whether episodes terminate; else they are truncated
    :param space: "vector", "dict" (``label`` as above, and ``extra``, the step number) or "image"
    :param action_shape: shape of the actions
    :param reward: factor on the rewards
    """

    def __init__(
        self,
        env_id: int = 0,
        lengths: Sequence[int] = (7,),
        terminates: bool = True,
        space: str = "vector",
        action_shape: tuple[int, ...] = (2,),
        reward: float = 1.0,
    ):
        label = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.kind = space
        self.observation_space: spaces.Space = label
        if space == "dict":
            self.observation_space = spaces.Dict({"label": label, "extra": spaces.Box(-np.inf, np.inf, (1,), np.float32)})
        if space == "image":
            self.observation_space = spaces.Box(0, 255, (36, 36, 1), np.uint8)
        # Not [-1, 1], so that forgotten scaling shows
        self.action_space = spaces.Box(-2.0, 6.0, action_shape, np.float32)
        self.env_id, self.lengths, self.terminates = env_id, tuple(lengths), terminates
        self.episode, self.step_number, self.reward = -1, 0, reward
        self.actions: list[np.ndarray] = []

    def _observation(self) -> Any:
        label = np.array([self.env_id, self.episode, self.step_number], dtype=np.float32)
        if self.kind == "dict":
            return {"label": label, "extra": label[2:].copy()}
        if self.kind == "image":
            return np.full((36, 36, 1), (40 * self.episode + self.step_number) % 256, dtype=np.uint8)
        return label

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.step_number = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.actions.append(np.array(action))
        self.step_number += 1
        ended = self.step_number >= self.lengths[self.episode % len(self.lengths)]
        reward = self.reward * self.step_number
        return self._observation(), reward, ended and self.terminates, ended and not self.terminates, {}


class Counter(LabelledEnv):
    """Observations are the step's number: an integer, also the one that an episode ends with; or stacked vectors."""

    def __init__(self, space: spaces.Space):
        super().__init__()
        self.observation_space = space

    def _observation(self) -> Any:
        if isinstance(self.observation_space, spaces.Box):
            return np.full(self.observation_space.shape, self.step_number, dtype=np.float32)
        if isinstance(self.observation_space, spaces.Dict):
            return {"step": self.step_number, "label": super()._observation()}
        return self.step_number


def _make_labelled(**kwargs: Any) -> gym.Env:
    return Monitor(LabelledEnv(**kwargs))


def env_makers(n_envs: int, **kwargs: Any) -> list[partial[gym.Env]]:
    """
    :param n_envs: number of environments, numbered in their observations
    :param kwargs: see :class:`LabelledEnv`
    :return: their constructors, which processes can be sent
    """
    return [partial(_make_labelled, env_id=i, **kwargs) for i in range(n_envs)]


def labelled_vec_env(n_envs: int = 1, **kwargs: Any) -> DummyVecEnv:
    """
    :param n_envs: number of environments
    :param kwargs: see :class:`LabelledEnv`
    """
    return DummyVecEnv(list(env_makers(n_envs, **kwargs)))


def small_rpg(env: Any = None, policy: Any = "MlpPolicy", **kwargs: Any) -> RPG:
    """
    :param env: default: one :class:`LabelledEnv`
    :param policy: policy
    :param kwargs: replace the arguments in ``SMALL``
    """
    return RPG(policy, LabelledEnv() if env is None else env, **{**SMALL, **kwargs})


def parameters_of(module: th.nn.Module) -> dict[str, th.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, th.Tensor], module: th.nn.Module) -> set[str]:
    """Names of the parameters and buffers that are not bit for bit what they were."""
    after = module.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not th.equal(before[name], after[name])}


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Tests must not depend on the order that they run in."""
    np.random.seed(0)
    th.manual_seed(0)


@pytest.fixture
def actor_batches(monkeypatch: pytest.MonkeyPatch) -> list[PolicyBatch]:
    """The batches that actors learn from during the test."""
    batches: list[PolicyBatch] = []

    def spy(twin: Any, batch: PolicyBatch, settings: Any) -> Any:
        batches.append(batch)
        return update_actor(twin, batch, settings)

    monkeypatch.setattr("sb3_rpg.training.update_actor", spy)
    return batches


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """Warnings are errors, PyTorch's too, which otherwise come once in a process."""
    th.set_warn_always(True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    th.set_warn_always(False)
