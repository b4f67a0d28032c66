"""Choosing z by imagined returns: which z, and when."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from sb3_rpg.losses import value_estimate
from sb3_rpg.policies import PlanningConfig, RPGPolicy
from tests.small_policies import DIM, make_policy, observations, with_latent


def imagined_value_by_hand(policy: RPGPolicy, state: th.Tensor, z: th.Tensor, horizon: int, gamma: float) -> float:
    model, states, rewards, values = policy.world_model, state.unsqueeze(0), [], []
    hidden = model.initial_hidden(states)
    for _ in range(horizon):
        embedding = model.action_embedding(policy.actor.action_head.mode(th.cat([states, z.unsqueeze(0)], dim=1)))
        hidden = model.gru(embedding, hidden)
        states = model.decoder(hidden)
        rewards.append(model.reward(th.cat([states, embedding], dim=1)).view(1))
        values.append(model.predict_values(states, z.unsqueeze(0)))
    zeros = th.zeros(horizon, 1)
    return value_estimate(th.stack(rewards), zeros, th.stack(values), gamma).mean().item()


@with_latent
def test_plan_is_the_candidate_of_the_highest_imagined_value(latent: str) -> None:
    policy, planning = make_policy(latent), PlanningConfig(every=0, horizon=2, gamma=0.8)
    actions, (z, steps) = policy.predict(observations(3), deterministic=True, planning=planning)
    assert steps.tolist() == [0, 0, 0]
    with th.no_grad():
        states = policy.world_model.encoder(th.as_tensor(observations(3)))
        candidates = policy.actor.latent_candidates(states)
        for b in range(3):
            values = [imagined_value_by_hand(policy, states[b], candidate, 2, 0.8) for candidate in candidates[:, b]]
            assert np.allclose(z[b], candidates[int(np.argmax(values)), b])
    expected = policy.predict(observations(3), (z,), deterministic=True)[0]
    assert np.array_equal(actions, expected)


def test_plans_do_not_reach_beyond_a_sure_termination() -> None:
    policy = make_policy("gaussian")
    model = policy.world_model
    with th.no_grad():
        states = model.encoder(th.as_tensor(observations(2)))
        candidates = policy.actor.latent_candidates(states)
        open_ended, ending, slower = (
            policy.imagined_values(states, candidates, PlanningConfig(0, 3, 0.8, weight_decay, terminations))
            for weight_decay, terminations in ((0.5, False), (0.5, True), (0.97, False))
        )
        assert not th.allclose(open_ended, ending)  # an untrained head says one half
        assert not th.allclose(open_ended, slower)
        *_, last = (layer for layer in model.termination.modules() if isinstance(layer, th.nn.Linear))
        last.bias.fill_(50.0)
        # Every step is the last: only the first one's reward is left, whatever the horizon
        ending, first = (
            policy.imagined_values(states, candidates, PlanningConfig(0, horizon, 0.8, 0.5, True)) for horizon in (3, 1)
        )
        assert th.allclose(ending, first, atol=1e-6) and ending.std() > 0


def replans(policy: RPGPolicy, every: int, starts: list[list[bool]]) -> list[list[bool]]:
    """Where z is planned anew in a run of two environments; each step's state is marked to show it."""
    planning, state, marks = PlanningConfig(every=every, horizon=1), None, []
    for start in starts:
        _, (z, steps) = policy.predict(observations(2), state, np.array(start), planning=planning)
        marks.append([bool(np.all(row != 99.0)) for row in z])
        state = (np.full_like(z, 99.0), steps)
    return marks


def test_z_is_planned_at_an_episodes_start_and_every_so_many_steps() -> None:
    policy = make_policy()
    starts = [[True, True], [False, False], [False, True], [False, False], [False, False]]
    assert replans(policy, 0, starts) == starts
    every_2 = [[True, True], [False, False], [True, True], [False, False], [True, True]]
    assert replans(policy, 2, starts) == every_2
    every_3 = [[True, True], [False, False], [False, True], [True, False], [False, False]]
    assert replans(policy, 3, starts) == every_3
    assert replans(policy, 1, starts) == [[True, True]] * 5


@pytest.mark.usefixtures("no_warnings")
def test_a_chosen_z_is_honoured_by_a_planning_policy_until_it_plans_anew() -> None:
    policy, kept = make_policy(), []
    state: np.ndarray | tuple[np.ndarray, ...] = np.full(DIM, 0.3, dtype=np.float32)
    for _ in range(3):
        _, state = policy.predict(observations(2), state, planning=PlanningConfig(every=2))
        kept.append(bool(np.allclose(state[0], 0.3)))
    assert kept == [True, True, False]


def test_without_z_there_is_nothing_to_plan() -> None:
    _, state = make_policy("none").predict(observations(), planning=PlanningConfig())
    assert len(state) == 1 and state[0].shape == (5, 0)
