"""The REINFORCE of the bandit's figure is SB3's A2C, set to be REINFORCE: its step is the closed form's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C

from benchmarks.experiments import Task, find_experiment
from benchmarks.settings import Workbench, resolve_settings
from sb3_rpg.envs import bandit_reward


def make_model(**overrides: Any) -> Any:
    settings = resolve_settings("reinforce", "RPGBandit-v0", overrides)
    bench = Workbench("reinforce", Task("RPGBandit-v0"), settings, 1000, 0, "cpu")
    return bench.make_model(bench.make_env())


def test_it_is_one_of_the_bandits_algorithms() -> None:
    (algorithm,) = find_experiment("bandit").select(["reinforce"])
    model = make_model(**algorithm.overrides)
    assert type(model) is A2C
    assert isinstance(model.policy.optimizer, th.optim.Adam)
    assert {name for name, _ in model.policy.named_parameters() if not name.startswith("value_net")} == {
        *("log_std", "action_net.weight", "action_net.bias")
    }


@pytest.mark.parametrize("ent_coef", [0.0, 0.7])
def test_one_update_is_the_closed_form_of_reinforce(ent_coef: float) -> None:
    learning_rate = 0.125
    model = make_model(ent_coef=ent_coef, learning_rate=learning_rate)
    policy = model.policy
    # One step of it moves every parameter by its gradient
    policy.optimizer = th.optim.SGD(policy.parameters(), lr=learning_rate)
    with th.no_grad():
        policy.action_net.bias.fill_(-0.75)
    mean, std = -0.75, policy.log_std.exp().item()
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    model.learn(50)
    actions = model.rollout_buffer.actions.reshape(-1).astype(np.float64)
    rewards = bandit_reward(np.clip(actions, -1, 1))
    assert len(actions) == 50 and (rewards > 0.5).any() and (rewards == 0).any()
    # d/d mean and d/d log std of E[r log N(a)], and of the entropy 1/2 log(2 pi e) + log std
    expected = {
        "action_net.bias": (rewards * (actions - mean) / std**2).mean(),
        "log_std": (rewards * (((actions - mean) / std) ** 2 - 1)).mean() + ent_coef,
    }
    for name, parameter in policy.named_parameters():
        step = (parameter.detach() - before[name]) / learning_rate
        gradient = th.full_like(step, expected.get(name, 0.0))
        assert th.allclose(step, gradient, rtol=1e-3, atol=1e-4), (name, step, gradient)
    assert abs(expected["action_net.bias"]) > 0.1, "the gradient matters"


def test_there_is_no_baseline_and_its_values_stay_zero() -> None:
    model = make_model().learn(500)
    values = model.policy.predict_values(th.zeros(3, 1))
    assert th.all(values == 0)
    advantages, rewards = (array.reshape(-1) for array in (model.rollout_buffer.advantages, model.rollout_buffer.rewards))
    assert np.array_equal(np.sort(advantages), np.sort(rewards)) and rewards.any()
