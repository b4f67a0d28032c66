"""Replay buffers with an intrinsic reward, and uniform samples of any replay buffer."""

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rpg.intrinsic import IntrinsicDictReplayBuffer, IntrinsicReplayBuffer, uniform_transition_batch
from sb3_rpg.intrinsic.replay import transitions_at

OBS = spaces.Box(-1000, 1000, (2,))
ACT = spaces.Box(-1, 1, (1,))
RND_KWARGS: dict[str, Any] = {"width": 16, "warmup_updates": 0}


def fill(buffer: ReplayBuffer, n_rows: int, start: int = 0) -> None:
    """Observations count the steps (first value) and name the environment (second); the reward is the step's number."""
    for step in range(start, start + n_rows):
        obs = np.stack([np.full(buffer.n_envs, step), np.arange(buffer.n_envs)], axis=1).astype(np.float64)
        next_obs = obs + np.array([1, 0])
        if isinstance(buffer.observation_space, spaces.Dict):
            obs, next_obs = {"a": obs}, {"a": next_obs}  # type: ignore[assignment]
        action = np.full((buffer.n_envs, 1), step % 2)
        reward = np.full(buffer.n_envs, float(step))
        done = np.full(buffer.n_envs, step % 10 == 9)
        buffer.add(obs, next_obs, action, reward, done, [{"TimeLimit.truncated": step % 20 == 19}] * buffer.n_envs)


def make_buffer(n_rows: int = 40, n_envs: int = 2, **kwargs: Any) -> IntrinsicReplayBuffer:
    th.manual_seed(0)
    arguments = {"device": "cpu", "n_envs": n_envs, "intrinsic_reward_kwargs": RND_KWARGS, **kwargs}
    buffer = IntrinsicReplayBuffer(50 * n_envs, OBS, ACT, **arguments)
    fill(buffer, n_rows)
    return buffer


def sample(buffer: ReplayBuffer, batch_size: int = 64, seed: int = 0, env: VecNormalize | None = None) -> Any:
    np.random.seed(seed)
    return buffer.sample(batch_size, env=env)


class CountingEnv(gym.Env):
    """Only lends its spaces to VecNormalize."""

    observation_space = OBS
    action_space = ACT


@pytest.mark.parametrize("n_rows", [1, 30, 50, 77])
@pytest.mark.parametrize("optimize_memory_usage", [False, True])
def test_uniform_batch_returns_every_stored_transition_and_no_other(n_rows: int, optimize_memory_usage: bool) -> None:
    buffer = ReplayBuffer(
        150, OBS, ACT, "cpu", 3, optimize_memory_usage=optimize_memory_usage, handle_timeout_termination=False
    )
    fill(buffer, n_rows)
    obs, actions, next_obs = uniform_transition_batch(buffer, 5000)
    assert isinstance(obs, th.Tensor)
    assert isinstance(next_obs, th.Tensor)
    assert th.equal(next_obs, obs + th.tensor([1.0, 0.0]))
    assert th.equal(actions[:, 0], obs[:, 0] % 2)
    oldest = max(0, n_rows - 50 + int(optimize_memory_usage and n_rows >= 50))
    assert set(obs[:, 0].int().tolist()) == set(range(oldest, n_rows))
    assert set(obs[:, 1].int().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("n_rows", [30, 77])
@pytest.mark.parametrize(("memory_size", "steps"), [(1, 1), (3, 1), (4, 2), (15, 5), (10_000, None)])
def test_memory_size_keeps_the_most_recent(n_rows: int, memory_size: int, steps: int | None) -> None:
    buffer = ReplayBuffer(150, OBS, ACT, "cpu", 3)
    fill(buffer, n_rows)
    obs, _, _ = uniform_transition_batch(buffer, 3000, memory_size)
    assert isinstance(obs, th.Tensor)
    expected = range(n_rows - (steps or min(n_rows, 50)), n_rows)
    assert set(obs[:, 0].int().tolist()) == set(expected)


def test_uniform_batch_keeps_dtypes_but_float64() -> None:
    space = spaces.Dict({"a": spaces.Box(-1000, 1000, (2,), np.float64), "b": spaces.Box(0, 255, (3,), np.uint8)})
    buffer = DictReplayBuffer(10, space, spaces.Discrete(2), "cpu")
    obs: dict[str, np.ndarray] = {"a": np.ones((1, 2)), "b": np.full((1, 3), 7, dtype=np.uint8)}
    buffer.add(obs, obs, np.array([1]), np.zeros(1), np.zeros(1), [{}])
    batch, actions, _ = uniform_transition_batch(buffer, 4)
    assert isinstance(batch, dict)
    assert (batch["a"].dtype, batch["b"].dtype, actions.dtype) == (th.float32, th.uint8, th.int64)
    assert (batch["b"] == 7).all()


def test_uniform_batch_follows_numpys_seed() -> None:
    buffer = make_buffer()
    np.random.seed(3)
    first = uniform_transition_batch(buffer, 20)
    np.random.seed(3)
    second = uniform_transition_batch(buffer, 20)
    assert all(th.equal(a, b) for a, b in zip(first, second, strict=True))  # type: ignore[arg-type]


def test_uniform_batch_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="the replay buffer is empty"):
        uniform_transition_batch(ReplayBuffer(10, OBS, ACT, "cpu"), 4)
    with pytest.raises(ValueError, match="`memory_size` must be positive"):
        uniform_transition_batch(make_buffer(), 4, memory_size=0)


@pytest.mark.parametrize("kind", ["plain", "memory", "dict"])
@pytest.mark.parametrize("normalize", [False, True])
def test_without_intrinsic_reward_it_samples_what_sb3_samples(kind: str, normalize: bool) -> None:
    space = spaces.Dict({"a": OBS}) if kind == "dict" else OBS
    classes: dict[str, tuple[Any, Any]] = {"dict": (IntrinsicDictReplayBuffer, DictReplayBuffer)}
    ours, theirs = classes.get(kind, (IntrinsicReplayBuffer, ReplayBuffer))
    kwargs = {"optimize_memory_usage": True, "handle_timeout_termination": False} if kind == "memory" else {}
    buffers = [ours(100, space, ACT, "cpu", 2, intrinsic_reward=None, **kwargs), theirs(100, space, ACT, "cpu", 2, **kwargs)]
    env = None
    if normalize and kind != "dict":
        env = VecNormalize(DummyVecEnv([CountingEnv]))
        env.obs_rms.update(np.random.default_rng(0).normal(5, 3, (100, 2)))
        env.ret_rms.update(np.random.default_rng(0).normal(5, 3, 100))
    for buffer in buffers:
        fill(buffer, 60)
    ours_sample, theirs_sample = (sample(buffer, env=env) for buffer in buffers)
    for one, other in zip(ours_sample, theirs_sample, strict=True):
        if isinstance(one, dict):
            one, other = one["a"], other["a"]
        assert one is other is None or th.equal(one, other)


def test_rewards_are_extrinsic_plus_bonus_of_the_moment() -> None:
    buffer = make_buffer(extrinsic_scale=0.5)
    assert buffer.intrinsic_reward is not None
    before = sample(buffer)
    assert th.equal(before.rewards, 0.5 * before.observations[:, :1].float()), "no statistics yet: no bonus"
    for _ in range(5):
        buffer.update_intrinsic_reward(32)
    after = sample(buffer)
    assert th.equal(before.observations, after.observations)
    with buffer._autocast():
        bonus = buffer.intrinsic_reward.bonus(after.observations, after.actions, after.next_observations)
    assert th.equal(after.rewards, before.rewards + bonus.unsqueeze(1))
    assert bonus.abs().sum() > 0
    buffer.update_intrinsic_reward(32)
    assert not th.equal(sample(buffer).rewards, after.rewards), "the bonus is frozen"
    assert np.array_equal(buffer.rewards[:40, 0], np.arange(40)), "stored rewards stay extrinsic"


def test_bonus_reads_raw_observations_under_vec_normalize() -> None:
    buffer = make_buffer(precision="fp32")
    assert buffer.intrinsic_reward is not None
    for _ in range(5):
        buffer.update_intrinsic_reward(32)
    env = VecNormalize(DummyVecEnv([CountingEnv]))
    env.obs_rms.update(np.random.default_rng(0).normal(5, 3, (100, 2)))
    env.ret_rms.update(np.random.default_rng(0).normal(5, 3, 100))
    raw, normalized = sample(buffer), sample(buffer, env=env)
    for ours, stored in ((normalized.observations, raw.observations), (normalized.next_observations, raw.next_observations)):
        np.testing.assert_array_equal(ours.numpy(), env.normalize_obs(stored.numpy()))
    bonus = buffer.intrinsic_reward.bonus(raw.observations, raw.actions, raw.next_observations).unsqueeze(1)
    extrinsic = env.normalize_reward(raw.observations[:, :1].numpy())
    np.testing.assert_array_equal(normalized.rewards.numpy(), extrinsic + bonus.numpy())


def test_buffer_is_saved_and_loaded_to_the_last_bit(tmp_path: Path) -> None:
    def make_model(seed: int) -> SAC:
        return SAC(
            "MlpPolicy",
            "Pendulum-v1",
            replay_buffer_class=IntrinsicReplayBuffer,
            replay_buffer_kwargs={"intrinsic_reward_kwargs": RND_KWARGS},
            buffer_size=200,
            learning_starts=60,
            device="cpu",
            seed=seed,
        )

    model = make_model(0).learn(50)
    buffer: Any = model.replay_buffer
    for _ in range(5):
        buffer.update_intrinsic_reward(32)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_model(1)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    restored: Any = other.replay_buffer
    for _ in range(3):
        metrics = []
        for one in (buffer, restored):
            np.random.seed(0)
            metrics.append(one.update_intrinsic_reward(32))
        assert metrics[0] == metrics[1]
        assert th.equal(sample(buffer).rewards, sample(restored).rewards)
    states = [one.intrinsic_reward.state_dict() for one in (buffer, restored)]
    assert all(th.equal(states[0][name], states[1][name]) for name in states[0])
    optimizers = [one.intrinsic_reward.optimizer.state_dict()["state"] for one in (buffer, restored)]
    for key, moments in optimizers[0].items():
        assert all(th.equal(value, optimizers[1][key][name]) for name, value in moments.items())


def test_intrinsic_reward_follows_the_buffers_device() -> None:
    buffer = make_buffer()
    buffer.update_intrinsic_reward(32)
    buffer.device = th.device("meta")  # as load_replay_buffer does
    assert buffer.intrinsic_reward is not None
    assert buffer.intrinsic_reward.device.type == "meta"


def test_a_copy_is_of_one_device() -> None:
    buffer = make_buffer()
    buffer._device = th.device("cuda")  # as where there is one; the model of a pickle is on the CPU
    again = pickle.loads(pickle.dumps(buffer))
    assert again.device == again.intrinsic_reward.device == th.device("cpu")


def test_newest_rewards_are_those_of_the_last_steps() -> None:
    buffer = make_buffer(n_rows=60)
    extrinsic, intrinsic = buffer.newest_rewards(4)
    assert (extrinsic, intrinsic) == (57.5, 0.0)
    assert buffer.newest_rewards(10_000)[0] == np.arange(10, 60).mean()
    for _ in range(3):
        buffer.update_intrinsic_reward(32)
    assert buffer.newest_rewards(4)[1] != 0


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="use IntrinsicDictReplayBuffer"):
        IntrinsicReplayBuffer(10, spaces.Dict({"a": OBS}), ACT)
    with pytest.raises(ValueError, match="does not support n-step returns"):
        IntrinsicReplayBuffer(10, OBS, ACT, n_steps=3, gamma=0.99)
    with pytest.raises(ValueError, match="`precision` must be one of"):
        IntrinsicReplayBuffer(10, OBS, ACT, precision="fp8")
    with pytest.raises(ValueError, match="Unknown intrinsic reward"):
        IntrinsicReplayBuffer(10, OBS, ACT, intrinsic_reward="icn")


def test_newest_bonus_is_the_mean_of_the_last_steps() -> None:
    buffer = make_buffer(n_rows=60, precision="fp32")
    for _ in range(3):
        buffer.update_intrinsic_reward(32)
    rows, envs = np.repeat(np.arange(6, 10), 2), np.tile([0, 1], 4)
    assert buffer.intrinsic_reward is not None
    bonus = buffer.intrinsic_reward.bonus(*transitions_at(buffer, rows, envs))
    assert buffer.newest_rewards(4)[1] == pytest.approx(bonus.mean().item(), rel=1e-5)
