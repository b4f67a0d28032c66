"""The push task's environments, single and vectorised, and its pictures."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gym_check_env
from stable_baselines3 import SAC
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from sb3_rpg.envs import PushCore, PushEnv, PushVecEnv, push_positions_of
from sb3_rpg.envs.push_core import wall_cells
from tests.envs.push_policies import LEFT_AND_ROUND, STRAIGHT_AHEAD, head_for, play

TO_THE_GOAL = head_for(PushCore(), LEFT_AND_ROUND).astype(np.float32)
AHEAD = head_for(PushCore(), STRAIGHT_AHEAD).astype(np.float32)


def random_actions(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize("kwargs", [{}, {"start_noise": 0.0}])
def test_checkers_are_content(kwargs: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("RPGPointPush-v0", render_mode="rgb_array", **kwargs)
        sb3_check_env(env, skip_render_check=False)
        gym_check_env(env.unwrapped)


@pytest.mark.parametrize(("actions", "succeeds"), [(TO_THE_GOAL, True), (AHEAD, False)])
def test_an_episode_of_each_way(actions: np.ndarray, succeeds: bool) -> None:
    env = gym.make("RPGPointPush-v0", start_noise=0.0)
    env.reset(seed=0)
    total, successes = 0.0, []
    for t, action in enumerate(actions, start=1):
        obs, reward, terminated, truncated, info = env.step(action)
        distance = np.hypot(*(info["position"] - [0, 19]))
        assert reward == pytest.approx(-0.1 * distance)
        assert info["is_success"] == (distance < 5)
        assert not terminated and truncated == (t == 100)
        assert env.observation_space.contains(obs)
        total += float(reward)
        successes.append(info["is_success"])
    assert total == pytest.approx(play(actions)[0])
    assert successes[-1] is succeeds and sum(successes) == (len(successes) - successes.index(True) if succeeds else 0)


def test_observation() -> None:
    env = PushEnv()
    obs, info = env.reset(seed=0)
    assert set(info) == {"position", "box", "is_success"}
    assert obs.shape == (8,) and obs.dtype == np.float32
    before, sliding = info, 0
    for action in AHEAD[:30]:
        obs, *_, info = env.step(action)
        np.testing.assert_allclose(obs[:2], info["position"] / 8, rtol=1e-6)
        np.testing.assert_allclose(obs[2:4], info["position"] - before["position"], atol=1e-6)
        np.testing.assert_allclose(obs[4:6], info["box"] / 8, rtol=1e-6)
        np.testing.assert_array_equal(obs[6:], env.core.box_velocities[0].astype(np.float32))
        sliding += bool(obs[6:].any())
        np.testing.assert_allclose(push_positions_of(obs), info["position"], atol=1e-5)
        before = info
    assert info["box"][1] > 9 and sliding > 5
    info["box"][:] = 0.0  # the caller may change it
    assert env.core.boxes[0, 1] > 9
    with pytest.raises(ValueError, match=r"observations must have shape \(..., 8\), got \(28,\)"):
        push_positions_of(np.zeros(28))


def test_seeds_decide_the_start() -> None:
    starts = np.array([PushEnv().reset(seed=seed)[1]["position"] for seed in range(50)])
    assert 0.09 < np.abs(starts).max() <= 0.1 and len(np.unique(starts)) == 100
    np.testing.assert_array_equal(starts[7], PushEnv().reset(seed=7)[1]["position"])
    np.testing.assert_array_equal(PushEnv(start_noise=0.0).reset(seed=1)[1]["position"], [0, 0])


@pytest.mark.parametrize("make", [PushEnv, PushVecEnv])
def test_bad_options_are_refused(make: type[PushEnv] | type[PushVecEnv]) -> None:
    with pytest.raises(ValueError, match=r"start_noise must be in \[0, 3\), got 3.0"):
        make(start_noise=3.0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        make(render_mode="human")


def test_bad_actions_are_refused() -> None:
    env = PushEnv()
    env.reset()
    with pytest.raises(ValueError, match=r"action must have shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(np.array([np.nan, 0.0], dtype=np.float32))


def test_render_shows_robot_and_box() -> None:
    env = PushEnv(start_noise=0.0, render_mode="rgb_array")
    env.reset(seed=0)
    images = [env.render()]
    for action in AHEAD:
        env.step(action)
    images.append(env.render())
    blue = []
    for image in images:
        assert image is not None
        assert image.shape == (336, 336, 3)
        blue.append(np.argwhere((image == (0, 114, 178)).all(axis=-1)).mean(axis=0))
    assert blue[0] == pytest.approx([24 + 12 * 12, 168], abs=1)  # the box at (0, 8): 12 units below the upper edge
    assert blue[1] == pytest.approx([24 + 4 * 12, 168], abs=1)
    with pytest.warns(UserWarning, match="render_mode"):
        assert PushEnv().render() is None


# --- vectorised -------------------------------------------------------------------------------------------------------


def assert_same_infos(infos: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    for info, other in zip(infos, others, strict=True):
        assert set(info) == set(other)
        for key in info:
            np.testing.assert_array_equal(info[key], other[key])


def test_vec_env_agrees_with_a_dummy_vec_env() -> None:
    batched, dummy = PushVecEnv(3), DummyVecEnv([lambda: gym.make("RPGPointPush-v0") for _ in range(3)])
    assert batched.observation_space == dummy.observation_space
    assert batched.action_space == dummy.action_space
    assert batched.seed(7) == dummy.seed(7)
    np.testing.assert_array_equal(batched.reset(), dummy.reset())
    actions = random_actions(220, 3, 2)
    actions[:100, 0], actions[:100, 1], actions[100:200, 2] = TO_THE_GOAL, AHEAD, TO_THE_GOAL
    for step_actions in actions:
        results, expected = batched.step(step_actions), dummy.step(step_actions)
        for result, reference in zip(results[:3], expected[:3], strict=True):
            assert isinstance(result, np.ndarray) and isinstance(reference, np.ndarray)
            assert result.dtype == reference.dtype
            np.testing.assert_array_equal(result, reference)
        assert_same_infos(results[3], expected[3])
    assert_same_infos(batched.reset_infos, dummy.reset_infos)


def test_a_state_that_was_kept_goes_on_as_it_would_have() -> None:
    env, other = PushVecEnv(2), PushVecEnv(2)
    env.seed(3)
    env.reset()
    actions = np.stack([TO_THE_GOAL, AHEAD], axis=1)
    for step_actions in actions[:60]:
        env.step(step_actions)
    state = pickle.loads(pickle.dumps(env.state_dict()))
    assert not np.array_equal(state["boxes"], [[0, 8], [0, 8]])
    other.load_state_dict(state)
    for step_actions in np.concatenate([actions[60:], random_actions(80, 2, 2)]):  # beyond the episode's end
        ours, theirs = env.step(step_actions), other.step(step_actions)
        for result, reference in zip(ours[:3], theirs[:3], strict=True):
            np.testing.assert_array_equal(result, reference)
        assert_same_infos(ours[3], theirs[3])
    with pytest.raises(ValueError, match="state is of 2 copies of the environment, this object has 3"):
        PushVecEnv(3).load_state_dict(state)


def test_stable_baselines3_trains_and_evaluates_on_it() -> None:
    env = VecMonitor(PushVecEnv(2, max_episode_steps=10, render_mode="rgb_array"))
    model = SAC("MlpPolicy", env, learning_starts=20, buffer_size=200, batch_size=8, policy_kwargs={"net_arch": [8]}, seed=0)
    model.learn(60)
    assert [episode["l"] for episode in model.ep_info_buffer or []] == [10] * 6
    assert len(model.ep_success_buffer or []) == 6
    _, lengths = evaluate_policy(model, env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [10, 10]
    tiled = env.render()
    assert tiled is not None and tiled.shape == (672, 336, 3)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_trajectories_are_drawn_over_the_geometry() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from sb3_rpg.envs.maze_plot import latent_colors
    from sb3_rpg.envs.push_plot import draw_push_visits

    ax = Figure().add_subplot()
    positions = np.random.default_rng(0).uniform(-3, 3, size=(4, 20, 2))
    latents = np.random.default_rng(1).normal(size=(4, 3))
    assert draw_push_visits(ax, positions, latents, trajectories=True, title="Push", alpha=1.0) is ax
    assert ax.get_title() == "Push"
    assert len(ax.patches) == 1 + len(wall_cells()) + 1  # goal, walls, box
    lines, markers = ax.collections
    assert len(lines.get_paths()) == 4
    np.testing.assert_allclose(np.asarray(markers.get_facecolor())[::20, :3], latent_colors(latents))
    with pytest.raises(ValueError, match="positions must have shape"):
        draw_push_visits(ax, np.zeros(3))
