"""Broken actuators."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_rpg.envs import WeakActuator
from tests.conftest import LabelledEnv


@pytest.mark.parametrize(("index", "expected"), [(1, [0.5, -0.25]), ([0, 1], [0.25, -0.25]), (0, [0.25, -0.5])])
def test_the_named_actuators_do_less(index: int | list[int], expected: list[float]) -> None:
    inner = LabelledEnv()
    env = WeakActuator(inner, index, factor=0.5)
    assert env.action_space == inner.action_space
    env.reset(seed=0)
    asked = np.array([0.5, -0.5], dtype=np.float32)
    env.step(asked)
    np.testing.assert_allclose(inner.actions[-1], expected)
    np.testing.assert_array_equal(asked, [0.5, -0.5])  # the caller's array is his


def test_a_dead_joint_of_mujoco_does_not_answer() -> None:
    pytest.importorskip("mujoco")
    dead, whole = WeakActuator(gym.make("HalfCheetah-v5"), 2), gym.make("HalfCheetah-v5")
    rng = np.random.default_rng(0)

    def roll(env: gym.Env, joint: float) -> np.ndarray:
        obs = [env.reset(seed=0)[0]]
        for action in rng.uniform(-1, 1, size=(20, 6)).astype(np.float32):
            action[2] = joint
            obs.append(env.step(action)[0])
        return np.array(obs)

    state = rng.bit_generator.state
    results = []
    for env, joint in ((dead, 1.0), (dead, -1.0), (whole, 0.0), (whole, 1.0)):
        rng.bit_generator.state = state
        results.append(roll(env, joint))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert not np.allclose(results[0], results[3])


def test_gymnasium_can_make_it_again() -> None:
    env = WeakActuator(gym.make("Pendulum-v1"), 0, 0.3)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert isinstance(again, WeakActuator) and again.scale == pytest.approx([0.3])


def test_errors() -> None:
    env = LabelledEnv()
    with pytest.raises(ValueError, match=r"factor=1.5 must be between 0 \(dead\) and 1"):
        WeakActuator(env, 0, 1.5)
    wrong: list[int | list[int]] = [2, -1, []]
    for index in wrong:
        with pytest.raises(ValueError, match=r"index=.* must name actuators from 0 to 1"):
            WeakActuator(env, index)
    with pytest.raises(ValueError, match="its action space is Discrete"):
        WeakActuator(gym.make("CartPole-v1"), 0)
    env.action_space = spaces.Box(1.0, 2.0, (2,), np.float32)
    with pytest.raises(ValueError, match="index=0: 0 is outside of the action space"):
        WeakActuator(env, 0)
