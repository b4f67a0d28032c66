"""Rolled-out latents: what is recorded is what happened."""

from __future__ import annotations

import copy
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from sb3_rpg.envs import MazeVecEnv
from sb3_rpg.modes import Trajectory, path_spread, principal_paths, roll_out, sample_latents
from sb3_rpg.modes.trajectories import first_observation
from tests.conftest import labelled_vec_env, small_rpg

OBS = np.array([0.0, 1.0, 0.0], dtype=np.float32)


@pytest.mark.parametrize("kind", ["vector", "dict"])
@pytest.mark.parametrize("normalize", [False, True])
def test_episodes_of_different_lengths(kind: str, normalize: bool) -> None:
    env: Any = labelled_vec_env(2, lengths=(3, 5), space=kind)
    model = small_rpg(env, "MultiInputPolicy" if kind == "dict" else "MlpPolicy").learn(20)
    env = labelled_vec_env(2, lengths=(3, 5), space=kind)
    if normalize:
        env = VecNormalize(env)
    latents = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    trajectories = roll_out(model, env, latents)
    assert [len(t.rewards) for t in trajectories][:2] == [3, 3] and len(trajectories) == 5
    for t, z in zip(trajectories, latents, strict=True):
        n = len(t.rewards)
        steps = t.path[:, 0] if kind == "dict" else t.path[:, 2]  # dict: "extra" comes first
        assert np.allclose(steps, np.arange(n + 1), atol=1e-5)  # the final observation is the episode's own
        assert np.array_equal(t.rewards, np.arange(1, n + 1)) and t.episode_return == n * (n + 1) / 2
        assert t.actions.shape == (n, 2) and np.array_equal(t.latent, z) and t.success is None


class Door(gym.Env):
    """The hinge moves at the last step alone: no observation that statistics are made of shows it."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        opened = self.steps == 4
        return np.array([self.steps, float(opened)], dtype=np.float32), float(opened), opened, False, {}


def test_what_only_the_last_step_shows_is_not_clipped_and_statistics_stay_as_they_are() -> None:
    env = VecNormalize(DummyVecEnv([Door]))
    model = small_rpg(env).learn(40)
    statistics = cast(RunningMeanStd, env.obs_rms)
    before = copy.deepcopy(statistics)
    (trajectory,) = roll_out(model, env, np.zeros((1, 3)))
    assert np.allclose(trajectory.path[:, 1], [0, 0, 0, 0, 1]) and trajectory.rewards.tolist() == [0, 0, 0, 1]
    assert (statistics.mean == before.mean).all() and statistics.count == before.count
    # The policy is given what it was trained on
    z = np.zeros((1, 3), dtype=np.float32)
    action, _ = model.predict(env.normalize_obs(np.array([[1.0, 0.0]])), z, deterministic=True)
    assert np.allclose(trajectory.actions[1], action[0], atol=1e-5)


def test_the_first_observation_is_what_a_policy_is_given() -> None:
    env: Any = VecNormalize(labelled_vec_env(2))
    small_rpg(env).learn(40)
    count = env.obs_rms.count
    first = first_observation(env)
    raw = np.array([[0.0, env.venv.get_attr("episode")[0], 0.0]], dtype=np.float32)
    assert np.allclose(first, env.normalize_obs(raw)[0]) and not np.allclose(first, raw[0])
    assert env.obs_rms.count == count


def test_images_are_kept_as_bytes() -> None:
    model = small_rpg(labelled_vec_env(space="image"), "CnnPolicy")
    trajectories = roll_out(model, labelled_vec_env(2, space="image"), np.eye(3, dtype=np.float32))
    assert trajectories[0].path.dtype == np.uint8 and trajectories[0].path.shape == (8, 36 * 36)
    entries = roll_out(model, labelled_vec_env(2, space="image"), np.eye(3, dtype=np.float32), [0, 1])
    assert entries[0].path.dtype == np.float64 and (entries[0].path == trajectories[0].path[:, :2]).all()
    assert path_spread(trajectories) == pytest.approx(path_spread([_as_float(t) for t in trajectories]))
    assert np.allclose(
        principal_paths(trajectories).trajectories[0].path,
        principal_paths([_as_float(t) for t in trajectories]).trajectories[0].path,
    )


def _as_float(trajectory: Trajectory) -> Trajectory:
    return trajectory._replace(path=trajectory.path.astype(np.float64))


def test_each_z_acts_in_its_own_episode() -> None:
    model = small_rpg(MazeVecEnv(2)).learn(40)
    latents = sample_latents(model, np.zeros(28, dtype=np.float32), 4)
    together, alone = roll_out(model, MazeVecEnv(3), latents, "position"), roll_out(model, MazeVecEnv(1), latents, "position")
    for first, second in zip(together, alone, strict=True):
        assert first.path.shape == (51, 2) and np.allclose(first.path, second.path, atol=1e-5)
    sparse = roll_out(model, MazeVecEnv(2, reward="sparse"), latents, lambda obs, info: info["position"] * 2.0)
    assert np.allclose(sparse[0].path, 2.0 * together[0].path, atol=1e-4) and sparse[0].success is False


def test_entries_of_info_are_there_from_the_start_through_wrappers_too() -> None:
    model = small_rpg(MazeVecEnv(2)).learn(20)
    env = VecNormalize(VecMonitor(MazeVecEnv(2)), norm_obs=False)
    (trajectory,) = roll_out(model, env, np.zeros((1, 3)), "position")
    assert trajectory.path.shape == (51, 2) and np.array_equal(trajectory.path[0], [0.0, 0.0])


def test_errors() -> None:
    model = small_rpg()
    env = labelled_vec_env(1)
    with pytest.raises(ValueError, match=r"`latents` has the shape \(2, 5\), expected \(n, 3\)"):
        roll_out(model, env, np.zeros((2, 5)))
    with pytest.raises(ValueError, match="`descriptor`='position' is no entry of the environment's info"):
        roll_out(model, env, np.zeros((1, 3)), "position")
    with pytest.raises(ValueError, match=r"`descriptor`=\[0, 3\] names entries outside of the observation, which has 3"):
        roll_out(model, env, np.zeros((1, 3)), [0, 3])
