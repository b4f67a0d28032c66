"""The automatic factor on extrinsic rewards."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.reward_scaling import ReturnScaler


def feed(scaler: ReturnScaler, gamma: float, rewards: np.ndarray, dones: np.ndarray | None = None) -> None:
    """rewards and dones: (steps, n_envs)"""
    for t, row in enumerate(rewards):
        scaler.update(row, np.zeros(len(row), dtype=bool) if dones is None else dones[t], gamma)


def test_no_reward_yet_means_the_papers_factor_of_5() -> None:
    scaler = ReturnScaler()
    assert scaler.factor == 5.0
    feed(scaler, 0.99, np.zeros((50, 2)))
    assert scaler.factor == 5.0


def test_rare_success_keeps_the_papers_factor_and_large_rewards_shrink() -> None:
    rng = np.random.default_rng(0)
    rare, large = ReturnScaler(), ReturnScaler()
    feed(rare, 0.99, (rng.random((500, 1)) < 0.01).astype(float))
    feed(large, 0.99, rng.normal(0.0, 1000.0, (500, 1)))
    assert rare.factor == 5.0
    assert large.factor < 0.1


def test_by_hand() -> None:
    scaler = ReturnScaler(target_std=1.0)
    # Returns: 4, then 4/2 + 8 = 10, which ends the episode, then 2: mean 16/3
    feed(scaler, 0.5, np.array([[4.0], [8.0], [2.0]]), np.array([[False], [True], [False]]))
    std = np.std([4.0, 10.0, 2.0])
    assert scaler.factor == pytest.approx(1.0 / std)


@settings(max_examples=40, deadline=None)
@given(
    n_envs=st.integers(1, 4),
    steps=st.integers(2, 40),
    scale=st.floats(0.01, 1000),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 99),
)
def test_factor_is_target_std_over_the_std_of_all_discounted_returns(
    n_envs: int, steps: int, scale: float, offset: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rewards, dones = offset + scale * rng.normal(size=(steps, n_envs)), rng.random((steps, n_envs)) < 0.2
    scaler = ReturnScaler(target_std=10.0)
    feed(scaler, 0.9, rewards, dones)
    running, returns = np.zeros(n_envs), []
    for reward, done in zip(rewards, dones, strict=True):
        running = 0.9 * running + reward
        returns.append(running.copy())
        running[done] = 0.0
    assert scaler.factor == pytest.approx(min(5.0, 10.0 / np.std(returns)), rel=1e-6)


def test_environments_keep_returns_of_their_own_and_may_change_in_number() -> None:
    scaler = ReturnScaler(target_std=1.0)
    feed(scaler, 1.0, np.array([[1.0, 100.0], [1.0, 100.0]]), np.array([[False, True], [False, False]]))
    assert scaler.factor == pytest.approx(1.0 / np.std([1.0, 100.0, 2.0, 100.0]))
    scaler.update(np.array([5.0]), np.array([False]), 1.0)
    assert scaler.factor == pytest.approx(1.0 / np.std([1.0, 100.0, 2.0, 100.0, 5.0]))


def test_a_return_does_not_run_across_a_reset_without_done() -> None:
    scaler = ReturnScaler(target_std=1.0)
    none = np.zeros(2, dtype=bool)
    scaler.update(np.array([1.0, 1.0]), none, 1.0, ~none)
    scaler.update(np.array([1.0, 1.0]), none, 1.0, np.array([True, False]))
    assert scaler.factor == pytest.approx(1.0 / np.std([1.0, 1.0, 1.0, 2.0]))


def test_saved_with_the_model() -> None:
    scaler = ReturnScaler()
    feed(scaler, 0.9, np.random.default_rng(0).normal(0.0, 100.0, (20, 2)))
    again = pickle.loads(pickle.dumps(scaler))
    assert again.factor == scaler.factor < 5.0
    for one in (scaler, again):
        one.update(np.array([3.0, -500.0]), np.array([False, True]), 0.9)
    assert again.factor == scaler.factor


def test_rewards_that_are_passed_are_not_written_to() -> None:
    rewards, dones = np.array([1.0, 2.0]), np.array([True, False])
    ReturnScaler().update(rewards, dones, 0.9)
    assert rewards.tolist() == [1.0, 2.0] and dones.tolist() == [True, False]
