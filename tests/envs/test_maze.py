"""The maze's environments, single and vectorised."""

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

from sb3_rpg.envs import MazeEnv, MazeVecEnv, cells_of, coverage, positions_of
from sb3_rpg.envs.maze_layout import FARTHEST_ROOM

# Room by room from the centre to the farthest room.
WAY_TO_FARTHEST_ROOM = [(-2, 0), (-4, 0), (-4, 2), (-2, 2), (-2, 4)]


def walk_to_farthest_room() -> list[np.ndarray]:
    """Actions that lead from the start to the centre of the farthest room."""
    actions = []
    x, y = 0, 0
    for next_x, next_y in WAY_TO_FARTHEST_ROOM:
        actions += 8 * [np.array([(next_x - x) / 2, (next_y - y) / 2], dtype=np.float32)]
        x, y = next_x, next_y
    return actions


def random_actions(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "kwargs", [{}, {"reward": "sparse"}, {"start_noise": 0.5}, {"reward": "escape", "blocked": [(-1, 0), (-3, 0)]}]
)
def test_checkers_are_content(kwargs: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("RPGMaze-v0", render_mode="rgb_array", **kwargs)
        sb3_check_env(env, skip_render_check=False)
        gym_check_env(env.unwrapped)


def test_observation_is_the_position_and_its_encoding() -> None:
    env = MazeEnv()
    obs, _ = env.reset(seed=0)
    assert obs.shape == (28,)
    assert obs.dtype == np.float32
    np.testing.assert_array_equal(obs[:2], [0, 0])
    for action in random_actions(20, 2):
        obs, _, _, _, info = env.step(action)
        position = info["position"]
        np.testing.assert_allclose(obs[:2], 0.01 * position, rtol=1e-6)
        for block, coordinate in zip((obs[2:15], obs[15:]), position, strict=True):
            s = coordinate / 5
            expected = [s] + [f(2**i * s) for i in range(6) for f in (np.sin, np.cos)]
            np.testing.assert_allclose(block, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(positions_of(obs), position, atol=1e-6)
    with pytest.raises(ValueError, match=r"observations must have shape \(..., 28\), got \(3,\)"):
        positions_of(np.zeros(3))


def test_episode_is_truncated_after_50_steps_and_never_terminates() -> None:
    env = gym.make("RPGMaze-v0")
    env.reset(seed=0)
    for t, action in enumerate(random_actions(50, 2), start=1):
        _, reward, terminated, truncated, info = env.step(action)
        assert reward == 0.0
        assert not terminated
        assert truncated == (t == 50)
        assert "is_success" not in info


def test_info_and_lifetime_coverage() -> None:
    env = MazeEnv()
    _, info = env.reset(seed=0)
    assert set(info) == {"position", "cell", "coverage"}
    assert (info["cell"], info["coverage"]) == (55, 0.01)
    positions = [info["position"]]
    assert positions[0].dtype == np.float64
    previous = 0.0
    for t, action in enumerate(random_actions(300, 2)):
        if t % 50 == 0:
            _, info = env.reset()  # coverage goes on over episodes
            np.testing.assert_array_equal(info["position"], [0, 0])
        *_, info = env.step(action)
        positions.append(info["position"])
        assert info["cell"] == cells_of(info["position"])
        assert info["coverage"] == coverage(positions) == env.coverage >= previous
        previous = info["coverage"]
    assert len({position.tobytes() for position in positions}) > 250  # copies, not views of one array
    positions[-1][:] = 4.0  # and so the caller may change them
    assert not np.array_equal(env.core.positions[0], [4.0, 4.0])


def test_sparse_reward_in_the_farthest_room() -> None:
    env = MazeEnv(reward="sparse")
    env.reset(seed=0)
    rewards, successes = [], []
    for action in walk_to_farthest_room():
        _, reward, terminated, _, info = env.step(action)
        assert not terminated
        rewards.append(reward)
        successes.append(info["is_success"])
    assert info["position"] == pytest.approx(FARTHEST_ROOM)
    # 40 steps; the last room is entered through the gap at y = 3, half-way between two centres
    assert rewards == [float(success) for success in successes]
    assert successes == [False] * 36 + [True] * 4
    *_, info = env.step(np.array([0.0, -1.0], dtype=np.float32))
    assert info["is_success"] is True
    for _ in range(4):
        *_, info = env.step(np.array([0.0, -1.0], dtype=np.float32))
    assert info["is_success"] is False  # it is about now, not about ever


@pytest.mark.parametrize("direction", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_escape_by_any_way_that_is_open(direction: tuple[int, int]) -> None:
    action = np.array(direction, dtype=np.float32)
    for blocked in ([], [direction]):
        env = MazeEnv(reward="escape", blocked=blocked)
        env.reset(seed=0)
        results = [env.step(action) for _ in range(16)]
        # Straight through two rooms: the second passage is 3 units away
        expected = [float(t > 12 and not blocked) for t in range(1, 17)]
        assert [reward for _, reward, *_ in results] == expected
        assert [float(info["is_success"]) for *_, info in results] == expected


def rollout(env: MazeEnv, seed: int) -> np.ndarray:
    starts = [env.reset(seed=seed)[1]["position"], env.reset()[1]["position"]]
    return np.array(starts + [env.step(action)[4]["position"] for action in random_actions(50, 2)])


def test_determinism_and_seeding() -> None:
    np.testing.assert_array_equal(rollout(MazeEnv(), 0), rollout(MazeEnv(), 1))  # without noise the seed plays no role
    noisy = rollout(MazeEnv(start_noise=0.5), 0)
    np.testing.assert_array_equal(noisy, rollout(MazeEnv(start_noise=0.5), 0))
    assert not np.array_equal(noisy, rollout(MazeEnv(start_noise=0.5), 1))
    assert not np.array_equal(noisy[0], noisy[1])
    starts = np.array([MazeEnv(start_noise=0.5).reset(seed=i)[1]["position"] for i in range(100)])
    assert 0.45 < np.abs(starts).max() <= 0.5


def picture(env: MazeEnv) -> np.ndarray:
    image = env.render()
    assert image is not None
    return image


def test_render_follows_the_agent() -> None:
    env = MazeEnv(render_mode="rgb_array")
    env.reset(seed=0)
    before = picture(env)
    assert before.shape == (432, 432, 3)
    assert before.dtype == np.uint8
    np.testing.assert_array_equal(before, picture(env))
    for _ in range(3):
        env.step(np.array([1.0, 0.0], dtype=np.float32))
    after = picture(env)
    moved = np.argwhere((after != before).any(axis=-1))
    assert abs(moved[:, 0].mean() - 216) < 1  # along the middle row
    assert moved[:, 1].max() > 216 + 30 - 1  # 0.75 units to the right
    for _ in range(2):
        env.step(np.array([1.0, 0.0], dtype=np.float32))
    assert not np.array_equal(picture(env), after)
    pictures = [before]
    for kwargs in ({"reward": "sparse"}, {"reward": "escape"}, {"blocked": [(1, 0)]}):
        other = MazeEnv(render_mode="rgb_array", **kwargs)
        other.reset(seed=0)
        assert not any(np.array_equal(picture(other), known) for known in pictures)
        pictures.append(picture(other))


def test_render_without_a_mode_warns() -> None:
    with pytest.warns(UserWarning, match="render_mode"):
        assert MazeEnv().render() is None


@pytest.mark.parametrize("make", [MazeEnv, MazeVecEnv])
def test_bad_options_are_refused(make: type[MazeEnv] | type[MazeVecEnv]) -> None:
    with pytest.raises(ValueError, match=r"reward must be one of .* got 'dense'"):
        make(reward="dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start_noise must be in \[0, 1\), got 1.0"):
        make(start_noise=1.0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array', got 'human'"):
        make(render_mode="human")
    with pytest.raises(ValueError, match=r"blocked=\[\(1, 1\)\] names \(1, 1\), where the maze has no passage"):
        make(blocked=[(1, 1)])


def test_bad_actions_are_refused() -> None:
    env = MazeEnv()
    env.reset()
    with pytest.raises(ValueError, match=r"action must have shape \(2,\), got \(3,\)"):
        env.step(np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(np.array([np.nan, 0.0], dtype=np.float32))
    vec_env = MazeVecEnv(2)
    vec_env.reset()
    with pytest.raises(ValueError, match=r"actions must have shape \(2, 2\), got \(3, 2\)"):
        vec_env.step(np.zeros((3, 2)))


# --- vectorised -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs", [{}, {"reward": "sparse"}, {"start_noise": 0.5}, {"reward": "escape", "blocked": [(-1, 0), (-3, 0)]}]
)
def test_vec_env_agrees_with_a_dummy_vec_env(kwargs: dict[str, Any]) -> None:
    batched = MazeVecEnv(3, **kwargs)
    dummy = DummyVecEnv([lambda: gym.make("RPGMaze-v0", **kwargs) for _ in range(3)])
    assert batched.observation_space == dummy.observation_space
    assert batched.action_space == dummy.action_space
    assert batched.seed(7) == dummy.seed(7)
    np.testing.assert_array_equal(batched.reset(), dummy.reset())
    actions = random_actions(120, 3, 2)
    actions[: len(walk_to_farthest_room()), 0] = walk_to_farthest_room()
    for step_actions in actions:
        results, expected = batched.step(step_actions), dummy.step(step_actions)
        for result, reference in zip(results[:3], expected[:3], strict=True):
            assert isinstance(result, np.ndarray)
            assert isinstance(reference, np.ndarray)
            assert result.dtype == reference.dtype
            np.testing.assert_array_equal(result, reference)
        for info, reference in zip(results[3], expected[3], strict=True):
            assert set(info) == set(reference)
            for key in set(info) - {"coverage"}:
                np.testing.assert_array_equal(info[key], reference[key])
    for info, reference in zip(batched.reset_infos, dummy.reset_infos, strict=True):
        np.testing.assert_array_equal(info["position"], reference["position"])


def test_vec_env_episode_end() -> None:
    env = MazeVecEnv(2, max_episode_steps=3)
    env.reset()
    for _ in range(2):
        _, _, dones, infos = env.step(np.ones((2, 2)))
        assert not dones.any()
        assert all(info["TimeLimit.truncated"] is False and "terminal_observation" not in info for info in infos)
    obs, _, dones, infos = env.step(np.ones((2, 2)))
    assert dones.all()
    for info in infos:
        assert info["TimeLimit.truncated"] is True
        np.testing.assert_allclose(positions_of(info["terminal_observation"]), [0.75, 0.75], atol=1e-6)
        np.testing.assert_array_equal(info["position"], [0.75, 0.75])  # of the step, not of the new start
    assert isinstance(obs, np.ndarray)
    np.testing.assert_array_equal(positions_of(obs), np.zeros((2, 2)))


def test_vec_env_coverage_is_shared() -> None:
    env = MazeVecEnv(2)
    env.reset()
    positions = [np.zeros((2, 2))]
    for actions in random_actions(200, 2, 2):
        *_, infos = env.step(actions)
        positions.append(np.stack([info["position"] for info in infos]))
        assert infos[0]["coverage"] == infos[1]["coverage"] == env.coverage == coverage(positions)


def test_observations_of_a_step_are_not_overwritten() -> None:
    env = MazeVecEnv(2)
    first = env.reset()
    kept = first.copy()
    env.step(np.ones((2, 2)))
    np.testing.assert_array_equal(first, kept)


def test_vec_env_attributes() -> None:
    env = MazeVecEnv(3, render_mode="rgb_array")
    assert env.get_attr("max_episode_steps") == [50, 50, 50]
    assert env.get_attr("reward", indices=[0, 2]) == ["none", "none"]
    assert not env.has_attr("no_such_thing")
    env.set_attr("max_episode_steps", 10)
    assert env.max_episode_steps == 10
    assert env.env_is_wrapped(gym.Wrapper) == [False] * 3
    with pytest.raises(ValueError, match="indices must be None, got 1"):
        env.set_attr("max_episode_steps", 20, indices=1)
    with pytest.raises(AttributeError, match="has no sub-environments to call 'reset' on"):
        env.env_method("reset")
    for option in ("n_envs", "max_episode_steps"):
        with pytest.raises(ValueError, match=f"{option} must be at least 1, got 0"):
            MazeVecEnv(**{option: 0})  # type: ignore[arg-type]


def test_vec_env_renders_every_copy() -> None:
    env = MazeVecEnv(2, render_mode="rgb_array")
    env.reset()
    env.step(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    images = env.get_images()
    assert images[0] is not None
    assert images[0].shape == (432, 432, 3)
    assert (images[0] != images[1]).any()
    tiled = env.render()
    assert tiled is not None
    assert tiled.shape == (864, 432, 3)
    assert MazeVecEnv(2).get_images() == [None, None]


def test_vec_env_survives_pickling() -> None:
    env = MazeVecEnv(2, start_noise=0.3)
    env.seed(0)
    env.reset()
    env.step(np.ones((2, 2)))
    copy = pickle.loads(pickle.dumps(env))
    for actions in random_actions(60, 2, 2):
        np.testing.assert_array_equal(env.step(actions)[0], copy.step(actions)[0])


def test_stable_baselines3_trains_and_evaluates_on_it() -> None:
    env = VecMonitor(MazeVecEnv(2, reward="sparse", max_episode_steps=10))
    model = SAC("MlpPolicy", env, learning_starts=20, buffer_size=200, batch_size=8, policy_kwargs={"net_arch": [8]}, seed=0)
    model.learn(60)
    assert [episode["l"] for episode in model.ep_info_buffer or []] == [10] * 6
    assert len(model.ep_success_buffer or []) == 6
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [10, 10]
    assert returns == [0.0, 0.0]
