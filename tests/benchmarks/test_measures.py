"""Measurements are right, repeatable, and without a trace."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from benchmarks.measures import BanditMeasure, CoverageMeasure, EvaluationMeasure, isolated_randomness, make_measure
from benchmarks.schema import Metric, Task
from benchmarks.settings import Workbench, resolve_settings
from sb3_rpg.envs import MazeVecEnv, bandit_reward
from tests.benchmarks.conftest import TINY_SAC


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(th.rand(()))


def test_randomness_is_isolated() -> None:
    np.random.seed(1), th.manual_seed(1), random.seed(1)
    expected = [draw(), draw()]
    np.random.seed(1), th.manual_seed(1), random.seed(1)
    first = draw()
    with isolated_randomness(5):
        inside = draw()
    assert [first, draw()] == expected
    with isolated_randomness(5):
        assert draw() == inside


@pytest.fixture
def bench() -> Workbench:
    return Workbench("sac", Task("Pendulum-v1"), resolve_settings("sac", "Pendulum-v1", TINY_SAC), 100, 0, "cpu")


def test_evaluation_depends_on_seed_and_step_alone(bench: Workbench) -> None:
    model = bench.make_model(bench.make_env())
    measure = make_measure(Metric("return", 10, episodes=3), 0, bench.make_eval_env)
    assert isinstance(measure, EvaluationMeasure)
    first = measure(model, 10)
    other_step = measure(model, 20)
    assert measure(model, 10) == first == make_measure(measure.metric, 0, bench.make_eval_env)(model, 10)
    assert first != other_step
    assert set(first) == {"return"} and -2000 < first["return"] < 0
    measure.close()


def test_success_is_read_at_the_last_step() -> None:
    bench = Workbench("sac", Task("RPGBandit-v0"), resolve_settings("sac", "RPGBandit-v0", TINY_SAC), 100, 0, "cpu")

    class Model:
        """Plays a fixed action."""

        def __init__(self, action: float) -> None:
            self.action = action

        def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, None]:
            return np.full((len(observation), 1), self.action, dtype=np.float32), None

        def get_vec_normalize_env(self) -> None:
            return None

    measure: Any = EvaluationMeasure(Metric("success", 10, episodes=2), 0, bench.make_eval_env)
    assert measure(Model(-0.6), 0) == {"return": pytest.approx(1.1), "success": 1.0}
    assert measure(Model(0.8), 0) == {"return": pytest.approx(float(bandit_reward(0.8)), abs=1e-6), "success": 0.0}
    bandit: Any = BanditMeasure(Metric("mean_reward", 10), 0)
    expected = {"mean_reward": pytest.approx(1.1), "mean_reward_deterministic": pytest.approx(1.1)}
    assert bandit(Model(-0.6), 0) == expected


def test_coverage_is_that_of_training() -> None:
    env = MazeVecEnv(2)
    model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [8]}, device="cpu")
    env.reset()
    env.visited[:7] = True
    measure = CoverageMeasure(Metric("coverage", 10), 0)
    assert measure(model, 0) == {"coverage": env.coverage}
    assert env.coverage >= 0.07
