"""A task that takes seconds, and runs on it that are healthy or made to fail in each of the known ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_rpg import RPG, Ramp
from sb3_rpg.diagnostics import DiagnosticsCallback

N_ENVS = 5


class Fork(gym.Env[np.ndarray, np.ndarray]):
    """
    A point starts at 0 and moves by its action; the reward is its distance from 0. Going left is as good as going right, and
    staying is worst: the smallest task with two modes. 10 steps; the best return is 8.

    :param reward: factor on the reward; 0: nothing to find
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, reward: float = 1.0) -> None:
        self.reward, self.position, self.steps = reward, 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = 0.0, 0
        return self._observation(), {"position": [0.0]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = float(np.clip(self.position + 0.2 * np.clip(action[0], -1, 1), -1, 1))
        self.steps += 1
        return self._observation(), self.reward * abs(self.position), False, self.steps == 10, {"position": [self.position]}

    def _observation(self) -> np.ndarray:
        return np.array([self.position, self.steps / 10], dtype=np.float32)


#: small networks and many updates: a run takes seconds
SETTINGS: dict[str, Any] = {
    "policy_kwargs": {"net_arch": [32, 32], "hidden_dim": 32, "state_dim": 8},
    "learning_rate": 1e-3,
    "batch_size": 64,
    "learning_starts": 200,
    "buffer_size": 20_000,
    "train_freq": 1,
    "latent": "categorical",
    "latent_dim": 2,
    "latent_ent_coef": 1.0,
    "beta": 0.5,
    "reward_scale": 0.2,
    "intrinsic_reward": None,
    "precision": "fp32",
    "device": "cpu",
}


@dataclass(frozen=True)
class Case:
    """
    A run.

    :param name: of the failure that it is made to have, see :data:`~sb3_rpg.diagnostics.FAILURES`
    :param measured: the measurement that shows it
    :param label: of the axis
    :param change: arguments that make the run fail
    :param base: arguments of the healthy run beside it; in both
    :param reward: see :class:`Fork`
    :param updates: of the world model
    """

    name: str
    measured: str
    label: str
    change: Mapping[str, Any]
    base: Mapping[str, Any] = field(default_factory=dict)
    reward: float = 1.0
    updates: int = 1200

    def run(self, healthy: bool, seed: int, callback: DiagnosticsCallback) -> RPG:
        """
        :param healthy: leave the change out
        :param seed: seed
        :param callback: what watches it
        :return: the trained model
        """
        env = make_vec_env(Fork, N_ENVS, seed=seed, env_kwargs={"reward": self.reward})
        model = RPG("MlpPolicy", env, seed=seed, **{**SETTINGS, **self.base, **({} if healthy else self.change)})
        return model.learn(SETTINGS["learning_starts"] + N_ENVS * self.updates, callback)


def _rnd(**kwargs: Any) -> dict[str, Any]:
    small = {"width": 32, "warmup_updates": 20}
    return {"intrinsic_reward": "rnd", "intrinsic_batch_size": 64, "intrinsic_reward_kwargs": {**small, **kwargs}}


CASES = (
    Case("mode_collapse", "information", "information in z (nats)", {"beta": 0.0}),
    Case(
        "over_exploration",
        "exploration_share",
        "exploration's share of the reward",
        {"beta": 10.0},
        {"latent_dim": 8, "latent_ent_coef": 100.0},  # else pi(z|s1) may settle on one of the eight
    ),
    Case("model_bias", "model_error", "model's error after 3 steps\n(variances of the states)", {"model_lr_factor": 1e-4}),
    Case(
        "bonus_exhaustion",
        "bonus_spread",
        "spread of the bonus\n(standard deviations)",
        _rnd(indices=[0], learning_rate=1e-3),
        _rnd(indices=[0], learning_rate=1e-5),
        reward=0.0,
    ),
    Case(
        "value_overestimation",
        "value_bias_relative",
        "values' excess over what was reached\n(multiples of size and spread)",
        {"reward_scale": Ramp(20.0, 0.1, 4000, 4200)},
    ),
    Case(
        "alpha_collapse",
        "ent_coef_change",
        "alpha / initial alpha",
        {"target_entropy": -20.0, "ent_coef_lr_factor": 1000.0},
    ),
    Case(
        "alpha_explosion",
        "ent_coef_change",
        "alpha / initial alpha",
        {"target_entropy": 3.0, "ent_coef_lr_factor": 100.0},
    ),
)
