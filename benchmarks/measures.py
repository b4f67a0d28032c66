"""What can be measured of a model in training. A measurement leaves no trace: it neither draws from nor advances the
training's random numbers."""

from __future__ import annotations

import contextlib
import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from benchmarks.densities import Counts, count_actions
from benchmarks.schema import Metric

#: actions that the bandit's mean reward is taken over, and their density
BANDIT_ACTIONS = 4096
# Evaluations get seeds far from those of any training environment
EVALUATION_SEEDS = 1_000_000


@contextlib.contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """
    Seed all generators, and restore them afterwards.

    :param seed: seed
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with th.random.fork_rng():
        set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


class Measure(ABC):
    """
    A measurement that is repeated during training.

    :param metric: what and how often
    :param seed: seed of the run
    """

    def __init__(self, metric: Metric, seed: int) -> None:
        self.metric = metric
        self.seed = seed
        #: actions of the last measurement, counted, where it draws any
        self.histogram: Counts | None = None

    def __call__(self, model: BaseAlgorithm, step: int) -> dict[str, float]:
        """
        :param model: the model
        :param step: environment steps so far
        :return: values by name
        """
        # Depends on seed and step alone, so that a resumed run is evaluated as one that was never interrupted
        seed = EVALUATION_SEEDS + (1_000_003 * self.seed + step) % (2**31)
        with isolated_randomness(seed):
            return self.measure(model, seed)

    @abstractmethod
    def measure(self, model: BaseAlgorithm, seed: int) -> dict[str, float]:
        """
        :param model: the model
        :param seed: seed of this measurement
        :return: values by name
        """

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Release what the measurement holds."""


class CoverageMeasure(Measure):
    """Share of the maze's cells that training has visited so far."""

    def measure(self, model: BaseAlgorithm, seed: int) -> dict[str, float]:
        env = model.get_env()
        assert env is not None
        return {"coverage": float(env.get_attr("coverage")[0])}


class EvaluationMeasure(Measure):
    """
    Return, and success where the environment reports it, of the deterministic policy on environments of its own.

    :param metric: what and how often
    :param seed: seed of the run
    :param make_env: makes the environment, given the number of copies
    """

    def __init__(self, metric: Metric, seed: int, make_env: Callable[[int], VecEnv]) -> None:
        super().__init__(metric, seed)
        self._make_env = make_env
        self._env: VecEnv | None = None

    def measure(self, model: BaseAlgorithm, seed: int) -> dict[str, float]:
        if self._env is None:
            # One episode a copy: all of them count, whatever their lengths, and the policy acts for all at once
            self._env = self._make_env(self.metric.episodes)
        self._follow_normalisation(model.get_vec_normalize_env(), self._env)
        self._env.seed(seed)
        successes: list[float] = []

        def note_success(local: dict[str, Any], _: dict[str, Any]) -> None:
            if local["done"] and "is_success" in local["info"]:
                successes.append(float(local["info"]["is_success"]))

        returns, _ = evaluate_policy(
            model,
            self._env,
            n_eval_episodes=self.metric.episodes,
            deterministic=True,
            callback=note_success,
            return_episode_rewards=True,
        )
        values = {"return": float(np.mean(returns))}
        return {**values, "success": float(np.mean(successes))} if successes else values

    @staticmethod
    def _follow_normalisation(training: VecNormalize | None, evaluation: VecEnv) -> None:
        """Give the training's statistics to the evaluation, whose wrappers may otherwise be different ones."""
        if training is None:
            return
        normalize = unwrap_vec_normalize(evaluation)
        assert normalize is not None, "training is normalised, evaluation is not"
        if training.norm_obs:
            normalize.obs_rms = copy.deepcopy(training.obs_rms)
        normalize.ret_rms = copy.deepcopy(training.ret_rms)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()


class BanditMeasure(Measure):
    """Mean reward of actions of the stochastic policy, each with a z of its own, and of the deterministic action."""

    def measure(self, model: BaseAlgorithm, seed: int) -> dict[str, float]:
        from sb3_rpg.envs import bandit_reward

        observations = np.zeros((BANDIT_ACTIONS, 1), dtype=np.float32)
        stochastic, _ = model.predict(observations, deterministic=False)
        deterministic, _ = model.predict(observations[:1], deterministic=True)
        self.histogram = count_actions(stochastic)
        return {
            "mean_reward": float(bandit_reward(stochastic).mean()),
            "mean_reward_deterministic": float(bandit_reward(deterministic).mean()),
        }


def count_parameters(model: BaseAlgorithm) -> int:
    """
    :param model: a model
    :return: parameters that training changes, those of an intrinsic reward among them; copies of others (targets) do not count
    """
    bonus = getattr(model, "bonus", None) or getattr(getattr(model, "replay_buffer", None), "intrinsic_reward", None)
    parameters = [parameter for name, parameter in model.policy.named_parameters() if "target" not in name]
    parameters += [] if bonus is None else bonus.parameters()
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)


def make_measure(metric: Metric, seed: int, make_eval_env: Callable[[int], VecEnv]) -> Measure:
    """
    :param metric: what and how often
    :param seed: seed of the run
    :param make_eval_env: makes an environment for evaluation, given the number of copies
    :return: the measurement
    """
    if metric.name == "coverage":
        return CoverageMeasure(metric, seed)
    if metric.name == "mean_reward":
        return BanditMeasure(metric, seed)
    return EvaluationMeasure(metric, seed, make_eval_env)
