"""The bandit of Fig. 4."""

from __future__ import annotations

import importlib
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gym_check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

import sb3_rpg.envs
from sb3_rpg.envs import BanditEnv, bandit_reward

GRID = np.linspace(-1, 1, 2_000_001)


def test_reward_at_closed_form_points() -> None:
    np.testing.assert_allclose(bandit_reward([-0.6, -0.55, -0.65, -1.0, -0.3, -0.125]), [1.1, 0.92, 0.92, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(bandit_reward([0.0, 0.375, 0.875, 0.9, 1.0]), [0.1171875, 0.375, 0, 0, 0], atol=1e-12)
    # The local mode's supremum is approached, not reached
    assert 0.5 - 1e-12 < bandit_reward(np.nextafter(0.875, 0.0)) <= 0.5


def test_modes() -> None:
    rewards = bandit_reward(GRID)
    assert rewards.max() == pytest.approx(1.1)
    assert GRID[rewards.argmax()] == pytest.approx(-0.6)
    assert rewards[GRID > -0.4].max() == pytest.approx(0.5, abs=1e-5)
    support = GRID[rewards > 0]
    globally, locally = support[support < -0.4], support[support > -0.4]
    half_width = np.sqrt(1.1 / 18) / 2
    np.testing.assert_allclose([globally[0], globally[-1]], [-0.6 - half_width, -0.6 + half_width], atol=2e-6)
    np.testing.assert_allclose([globally[0], globally[-1]], [-0.7236, -0.4764], atol=1e-4)
    np.testing.assert_allclose([locally[0], locally[-1]], [-0.125, 0.875], atol=2e-6)


def test_areas_and_mean_reward() -> None:
    rewards = bandit_reward(GRID)
    assert 2 * rewards[GRID < -0.4].sum() / GRID.size == pytest.approx(0.181, abs=1e-3)
    assert 2 * rewards[GRID > -0.4].sum() / GRID.size == pytest.approx(1 / 3, abs=1e-5)
    assert rewards.mean() == pytest.approx(0.257, abs=5e-4)


def test_slope_at_zero_points_to_the_local_mode() -> None:
    assert bandit_reward(0.01) > bandit_reward(0.0) > bandit_reward(-0.01)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_reward_is_elementwise_and_bounded(actions: list[float]) -> None:
    rewards = bandit_reward(np.array(actions)[:, None])
    assert rewards.shape == (len(actions), 1)
    assert ((rewards >= 0) & (rewards <= 1.1)).all()
    np.testing.assert_array_equal(rewards[:, 0], [float(bandit_reward(a)) for a in actions])


def test_reward_refuses_nan() -> None:
    with pytest.raises(ValueError, match="actions must be finite, got nan"):
        bandit_reward([0.0, np.nan])


def test_checkers_are_content() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("RPGBandit-v0", render_mode="rgb_array")
        sb3_check_env(env, skip_render_check=False)
        gym_check_env(env.unwrapped)


def test_step_terminates_the_episode() -> None:
    env = gym.make("RPGBandit-v0")
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs, np.zeros(1, dtype=np.float32))
    assert obs.dtype == np.float32
    assert info == {}
    obs, reward, terminated, _, info = env.step(np.array([-0.6], dtype=np.float32))
    assert terminated
    assert reward == pytest.approx(1.1)
    assert info["is_success"] is True
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1


def test_vectorised_episode_is_not_a_truncation() -> None:
    """Otherwise the constant observation's value would be added to every return."""
    env = DummyVecEnv([lambda: gym.make("RPGBandit-v0")])
    env.reset()
    _, rewards, dones, infos = env.step(np.array([[0.5]], dtype=np.float32))
    assert dones.all()
    assert rewards[0] == pytest.approx(bandit_reward(0.5))
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["is_success"] is False


def test_actions_are_clipped() -> None:
    env = BanditEnv()
    env.reset()
    assert env.step(np.array([-5.0], dtype=np.float32))[1] == 0.0


def test_bad_arguments_are_refused() -> None:
    env = BanditEnv()
    env.reset()
    with pytest.raises(ValueError, match=r"action must have shape \(1,\), got \(2,\)"):
        env.step(np.zeros(2, dtype=np.float32))
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(np.array([np.nan], dtype=np.float32))
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        BanditEnv(render_mode="human")


def test_render_shows_the_curve_and_the_actions() -> None:
    env = BanditEnv(render_mode="rgb_array")
    env.reset()
    curve = env.render()
    assert curve is not None
    assert curve.shape == (320, 480, 3)
    assert curve.dtype == np.uint8
    assert len(np.unique(curve.reshape(-1, 3), axis=0)) == 3  # background, axis, curve
    env.step(np.array([-0.6], dtype=np.float32))
    best = env.render()
    env.step(np.array([0.5], dtype=np.float32))
    both = env.render()
    assert best is not None
    assert both is not None
    changed = np.argwhere((best != curve).any(axis=-1))
    # The dot is at the curve's peak: a fifth of the way along the axis, near the top
    np.testing.assert_allclose(changed.mean(axis=0), [320 - 24 - 1.1 / 1.2 * 272, 24 + 0.2 * 432], atol=1.5)
    assert (both != best).any()


def test_render_without_a_mode_warns() -> None:
    with pytest.warns(UserWarning, match="render_mode"):
        assert BanditEnv().render() is None


def test_registering_again_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(sb3_rpg.envs)
    assert {"RPGBandit-v0", "RPGMaze-v0"} <= set(gym.registry)
