"""Hindsight: goals of a segment come from its own episode's future, rewards from the environment; steps stay as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_rpg import RPG
from sb3_rpg.her import LatentHerReplayBuffer
from tests.conftest import small_rpg


class GoalEnv(gym.Env):
    """
    Observation (environment, episode, step); the achieved goal is (episode, step), the desired one far away. The reward is
    0 at the goal, else -1, less the number in ``info``.
    """

    def __init__(self, env_id: int = 0, length: int = 6, penalty: float = 0.0, penalty_of_env: float = 0.0):
        goal = spaces.Box(-1e4, 1e4, (2,), np.float32)
        observation = spaces.Box(-1e4, 1e4, (3,), np.float32)
        self.observation_space = spaces.Dict(observation=observation, achieved_goal=goal, desired_goal=goal)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        # Episodes of different environments have different numbers
        self.env_id, self.length, self.episode, self.count = env_id, length, 1000 * env_id - 1, 0
        self.penalty = penalty + env_id * penalty_of_env

    def _obs(self) -> dict[str, np.ndarray]:
        return {
            "observation": np.array([self.env_id, self.episode, self.count], dtype=np.float32),
            "achieved_goal": np.array([self.episode, self.count], dtype=np.float32),
            "desired_goal": np.array([-5.0, -7.0], dtype=np.float32),
        }

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, infos: Any) -> np.ndarray:
        penalty = np.array([info.get("penalty", 0.0) for info in infos])
        return np.where(np.all(achieved == desired, axis=-1), 0.0, -1.0) - penalty

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._obs(), -1.0 - self.penalty, False, self.count >= self.length, {"penalty": self.penalty}


def her(n_envs: int = 2, **kwargs: Any) -> RPG:
    env_kwargs, buffer_kwargs = kwargs.pop("env_kwargs", {}), kwargs.pop("replay_buffer_kwargs", {})
    env = DummyVecEnv([lambda i=i: Monitor(GoalEnv(i, **env_kwargs)) for i in range(n_envs)])  # type: ignore[misc]
    arguments = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": buffer_kwargs, "buffer_size": 200, **kwargs}
    return small_rpg(env, "MultiInputPolicy", **arguments)


@pytest.mark.parametrize("strategy", ["future", "final", "episode"])
@pytest.mark.parametrize("steps", [90, 400])  # before and after the ring has wrapped
def test_goals_come_from_the_segments_own_episode(strategy: str, steps: int) -> None:
    model = her(replay_buffer_kwargs={"goal_selection_strategy": strategy, "n_sampled_goal": 3}).learn(steps)
    buffer: Any = model.replay_buffer
    assert type(buffer) is LatentHerReplayBuffer
    segments = buffer.sample_segments(400, 3)
    obs: Any = segments.observations
    next_obs: Any = segments.next_observations
    mask = segments.mask.bool()
    episode, first = obs["observation"][:, 1], obs["observation"][:, 2]
    goals = obs["desired_goal"]
    virtual = goals[:, 0] >= 0
    # Three of four, spread evenly, as the first of the batch get another z; unfinished episodes keep their goal
    assert not virtual[::4].any() and all(part.float().mean() > 0.6 for part in virtual.chunk(4))
    assert th.equal(goals[virtual][:, 0], episode[virtual])
    reached = goals[virtual][:, 1]
    assert (reached >= 1).all() and (reached <= 6).all()
    if strategy == "future":
        assert (reached > first[virtual]).all() and len(set((reached - first[virtual]).tolist())) > 3
    if strategy == "final":
        assert (reached == 6).all()
    assert th.equal(next_obs["desired_goal"], goals.expand(3, -1, -1))  # one goal for all steps
    hit = (next_obs["achieved_goal"] == next_obs["desired_goal"]).all(dim=-1)
    assert th.equal(segments.rewards, hit.float() - 1.0) and hit.any()
    # Everything else is what happened
    assert th.equal(next_obs["achieved_goal"], next_obs["observation"][..., 1:])
    expected = first + th.arange(1, 4).unsqueeze(1)
    assert th.equal(next_obs["observation"][..., 2][mask], expected[mask])
    stored: Any = buffer.observations["desired_goal"]
    assert (stored[: buffer.size(), :, 0] == -5).all()


def test_no_goal_crosses_a_reset_without_done_nor_one_of_the_buffer() -> None:
    model = her(env_kwargs={"length": 20})
    for steps in (24, 60, 34, 100):  # each call resets both environments, mostly in mid-episode
        model.learn(steps, reset_num_timesteps=False)
    for _ in range(2):
        segments: Any = model.replay_buffer.sample_segments(2000, 2)
        goals, label = segments.observations["desired_goal"], segments.observations["observation"]
        virtual = goals[:, 0] >= 0
        assert virtual.any() and th.equal(goals[virtual][:, 0], label[virtual][:, 1])
        assert (goals[virtual][:, 1] > label[virtual][:, 2]).all()
        model.replay_buffer.reset()
        model.learn(60, reset_num_timesteps=False)
        model.learn(60, reset_num_timesteps=False)


def test_before_the_first_episode_has_ended_goals_stay() -> None:
    model = her(env_kwargs={"length": 500}, learning_starts=5).learn(40)
    assert model._n_updates > 0
    segments: Any = model.replay_buffer.sample_segments(50, 3)
    assert (segments.observations["desired_goal"][:, 0] == -5).all()


def test_infos_reach_compute_reward_when_they_are_copied() -> None:
    model = her(env_kwargs={"penalty": 3.0}, replay_buffer_kwargs={"copy_info_dict": True}).learn(60)
    assert set(model.replay_buffer.sample_segments(100, 2).rewards.flatten().tolist()) == {-4.0, -3.0}
    # Each environment's own
    segments: Any = her(env_kwargs={"penalty_of_env": 10.0}, replay_buffer_kwargs={"copy_info_dict": True}).learn(60)
    segments = segments.replay_buffer.sample_segments(100, 2)
    penalty = 10.0 * segments.observations["observation"][:, 0]
    assert set((segments.rewards + penalty).flatten().tolist()) == {-1.0, 0.0} and penalty.max() == 10.0


def test_imagined_steps_start_from_new_goals_too_and_are_normalised() -> None:
    model = her().learn(60)
    observations: Any = model.replay_buffer.sample_states(200)[0]
    virtual = observations["desired_goal"][:, 0] >= 0
    assert 0.6 < virtual.float().mean() < 0.9
    assert th.equal(observations["desired_goal"][virtual][:, 0], observations["observation"][virtual][:, 1])
    normalizer = VecNormalize(DummyVecEnv([GoalEnv]), norm_obs_keys=["observation"], clip_obs=1e4)
    normalizer.obs_rms["observation"].mean[:] = 3.0
    np.random.seed(1)
    raw: Any = model.replay_buffer.sample_states(20)[0]
    np.random.seed(1)
    normalized: Any = model.replay_buffer.sample_states(20, normalizer)[0]
    assert th.allclose(normalized["observation"], raw["observation"] - 3.0, atol=1e-3)
    assert th.equal(normalized["desired_goal"], raw["desired_goal"])


@pytest.mark.parametrize("name", ["auto", "icm", "disagreement"])
def test_the_bonus_does_not_look_at_the_desired_goal(name: str) -> None:
    model = her(intrinsic_reward=name).learn(60)
    assert model.bonus is not None
    sample: Any = model.replay_buffer.sample_segments(20, 1).next_observations
    sample = {key: value[0] for key, value in sample.items()}
    errors = model.bonus.errors(sample, th.zeros(20, 2), sample)
    moved = {**sample, "desired_goal": sample["desired_goal"] + 100.0}
    assert th.equal(model.bonus.errors(moved, th.zeros(20, 2), moved), errors)
    asked = her(intrinsic_reward_kwargs={"width": 8, "keys": ["desired_goal"]})
    assert asked.bonus is not None and asked.bonus.features.dim == 2


def test_her_is_saved_and_loaded(tmp_path: Path) -> None:
    model = her().learn(60)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = RPG.load(tmp_path / "model", env=model.get_env(), device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer", truncate_last_traj=False)
    for name in ("ep_start", "ep_length", "rewards"):
        assert np.array_equal(getattr(loaded.replay_buffer, name), getattr(model.replay_buffer, name))
    assert loaded.replay_buffer.size() == model.replay_buffer.size()
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps == 80
