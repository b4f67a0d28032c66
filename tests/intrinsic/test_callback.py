"""The intrinsic reward in SB3's algorithms, from the first step to the log."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rpg.intrinsic import IntrinsicDictReplayBuffer, IntrinsicReplayBuffer, IntrinsicRewardCallback

INTRINSIC: dict[str, Any] = {"intrinsic_reward_kwargs": {"width": 16, "warmup_updates": 5}}


def small(**kwargs: Any) -> dict[str, Any]:
    """Arguments of a small model, made anew each time because SB3 writes into ``policy_kwargs``."""
    return {"policy_kwargs": {"net_arch": [16]}, "device": "cpu", "seed": 0, "buffer_size": 500, **kwargs}


class GoalWalk(gym.Env):
    """A point that walks on a line; observations of three kinds in a Dict."""

    observation_space = spaces.Dict(
        {"position": spaces.Box(-9, 9, (1,), np.float64), "step": spaces.Discrete(21), "flags": spaces.MultiBinary(2)}
    )
    action_space = spaces.Box(-1, 1, (1,))

    def _observe(self) -> dict[str, Any]:
        return {"position": self.position.copy(), "step": self.n_steps, "flags": np.array([1, 0], dtype=np.int8)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.n_steps = np.zeros(1), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + action, -9, 9)
        self.n_steps += 1
        return self._observe(), 0.0, False, self.n_steps == 20, {}


class LogRecorder(BaseCallback):
    """Keeps what has been logged by the end of training; comes after the callback under test."""

    def _init_callback(self) -> None:
        self.values: dict[str, float] = {}

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.values.update(self.logger.name_to_value)


def intrinsic_reward_of(model: BaseAlgorithm) -> Any:
    return model.replay_buffer.intrinsic_reward  # type: ignore[attr-defined]


def train(model: Any, n_steps: int, **kwargs: Any) -> LogRecorder:
    recorder = LogRecorder()
    model.learn(n_steps, callback=[IntrinsicRewardCallback(**{"batch_size": 32, **kwargs}), recorder], log_interval=10_000)
    return recorder


@pytest.mark.parametrize("algorithm", [SAC, TD3, DDPG, TQC, CrossQ])
def test_continuous_algorithms(algorithm: Any) -> None:
    model = algorithm(
        "MlpPolicy",
        make_vec_env("Pendulum-v1", 2),
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=50,
        **small(),
    )
    before = [parameter.clone() for parameter in intrinsic_reward_of(model).predictor.parameters()]
    logged = train(model, 200).values
    # 100 vector steps, of which the first 15 came before the buffer held a batch
    assert intrinsic_reward_of(model).n_updates == 85
    assert not any(th.equal(a, b) for a, b in zip(before, intrinsic_reward_of(model).predictor.parameters(), strict=True))
    assert {"intrinsic/loss", "intrinsic/error_mean", "intrinsic/error_std", "intrinsic/bonus_mean"} <= set(logged)
    assert logged["rollout/extrinsic_rew_mean"] < 0, "Pendulum only punishes"
    assert logged["rollout/intrinsic_rew_mean"] != 0
    assert all(np.isfinite(value) for value in logged.values())


def test_discrete_actions() -> None:
    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=40,
        **small(),
    )
    logged = train(model, 300).values
    assert logged["rollout/extrinsic_rew_mean"] == 1.0
    # DQN collects 4 steps a rollout: updates from the step on that fills a batch
    assert intrinsic_reward_of(model).n_updates == 300 - 28


def test_dict_observations() -> None:
    kwargs = {"intrinsic_reward_kwargs": {**INTRINSIC["intrinsic_reward_kwargs"], "indices": {"position": 0}}}
    model = SAC(
        "MultiInputPolicy",
        make_vec_env(GoalWalk, 3),
        replay_buffer_class=IntrinsicDictReplayBuffer,
        replay_buffer_kwargs=kwargs,
        learning_starts=50,
        **small(),
    )
    train(model, 300)
    assert intrinsic_reward_of(model).features.dim == 1 + 21 + 2 + 13
    assert intrinsic_reward_of(model).statistics.count > 0


def test_discrete_observations() -> None:
    model = DQN(
        "MlpPolicy",
        make_vec_env("Taxi", 2),
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=40,
        **small(),
    )
    train(model, 100)
    assert intrinsic_reward_of(model).features.dim == 500


def test_with_vec_normalize_and_memory_optimisation() -> None:
    model = SAC(
        "MlpPolicy",
        VecNormalize(make_vec_env("Pendulum-v1", 2)),
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs={**INTRINSIC, "handle_timeout_termination": False},
        optimize_memory_usage=True,
        learning_starts=50,
        **small(buffer_size=60),
    )
    logged = train(model, 200).values
    assert logged["rollout/extrinsic_rew_mean"] < -1, "the reward as the environment gives it, not normalised"
    speed = intrinsic_reward_of(model).features.statistics.variance[2]
    assert speed > 1.5, "the model sees the raw angular velocity, not the normalised one"


@pytest.mark.parametrize(
    ("train_freq", "updates_per_rollout", "expected"),
    [(1, None, 69), (4, None, 72), (4, 1, 18), ((1, "episode"), None, 100), ((1, "episode"), 3, 3)],
)
def test_one_update_per_vector_step_unless_told_otherwise(
    train_freq: Any, updates_per_rollout: int | None, expected: int
) -> None:
    env = gym.make("Pendulum-v1", max_episode_steps=100)
    model = SAC(
        "MlpPolicy",
        env,
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        train_freq=train_freq,
        learning_starts=1000,
        **small(),
    )
    train(model, 100, updates_per_rollout=updates_per_rollout)
    assert intrinsic_reward_of(model).n_updates == expected


def test_updates_are_told_the_sizes_of_batch_and_memory() -> None:
    model = SAC(
        "MlpPolicy", "Pendulum-v1", replay_buffer_class=IntrinsicReplayBuffer, replay_buffer_kwargs=INTRINSIC, **small()
    )
    calls: list[tuple[int, int | None]] = []
    buffer: Any = model.replay_buffer
    update = buffer.update_intrinsic_reward

    def watched(batch_size: int = 512, memory_size: int | None = None) -> Any:
        calls.append((batch_size, memory_size))
        return update(batch_size, memory_size)

    buffer.update_intrinsic_reward = watched
    train(model, 30, memory_size=20)
    assert set(calls) == {(32, 20)}


@pytest.mark.parametrize("kwargs", [{"buffer_size": 20}, {"memory_size": 20}])
def test_training_starts_where_a_whole_batch_will_never_be_there(kwargs: dict[str, int]) -> None:
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=1000,
        **small(buffer_size=kwargs.get("buffer_size", 500)),
    )
    train(model, 50, memory_size=kwargs.get("memory_size"))
    assert intrinsic_reward_of(model).n_updates == 31


def test_learning_goes_on_in_a_second_call() -> None:
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=1000,
        **small(),
    )
    callback = IntrinsicRewardCallback(batch_size=32)
    model.learn(60, callback=callback)
    model.learn(20, callback=callback, reset_num_timesteps=False)
    assert intrinsic_reward_of(model).n_updates == 29 + 20


def test_switched_off_by_one_word() -> None:
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs={"intrinsic_reward": "none", **INTRINSIC},
        **small(),
    )
    logged = train(model, 150).values
    assert logged["rollout/intrinsic_rew_mean"] == 0
    assert "intrinsic/loss" not in logged


def test_another_replay_buffer_is_refused_before_training() -> None:
    off_policy = SAC("MlpPolicy", "Pendulum-v1", **small())
    with pytest.raises(
        ValueError, match=r"replay buffer of this SAC is ReplayBuffer.*replay_buffer_class=IntrinsicReplayBuffer"
    ):
        off_policy.learn(10, callback=IntrinsicRewardCallback())
    assert off_policy.num_timesteps == 0
    on_policy = PPO("MlpPolicy", "Pendulum-v1", device="cpu", n_steps=8, batch_size=8)
    with pytest.raises(ValueError, match="replay buffer of this PPO is NoneType"):
        on_policy.learn(10, callback=IntrinsicRewardCallback())


def test_wrong_numbers_are_named() -> None:
    for name in ("updates_per_rollout", "batch_size", "memory_size"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive"):
            IntrinsicRewardCallback(**{name: 0})


def test_model_is_saved_and_loaded_with_a_fresh_buffer(tmp_path: Any) -> None:
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        **small(),
    )
    model.learn(50, callback=IntrinsicRewardCallback(batch_size=32))
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", env=model.get_env(), device="cpu")
    assert isinstance(loaded.replay_buffer, IntrinsicReplayBuffer)
    assert intrinsic_reward_of(loaded).n_updates == 0
    loaded.learn(50, callback=IntrinsicRewardCallback(batch_size=32))


def test_names_as_the_zoo_writes_them() -> None:
    assert eval("__import__('sb3_rpg.intrinsic', fromlist=['x']).IntrinsicReplayBuffer") is IntrinsicReplayBuffer
    utils = pytest.importorskip("rl_zoo3.utils")
    hyperparams = {"callback": [{"sb3_rpg.intrinsic.IntrinsicRewardCallback": {"batch_size": 64}}]}
    (callback,) = utils.get_callback_list(hyperparams)
    assert isinstance(callback, IntrinsicRewardCallback)
    assert callback.batch_size == 64


def test_metrics_are_means_over_the_updates() -> None:
    model = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=INTRINSIC,
        learning_starts=100,
        **small(),
    )
    numbers = iter(range(1000))
    buffer: Any = model.replay_buffer
    buffer.update_intrinsic_reward = lambda *_: {"loss": th.tensor(float(next(numbers)))}
    logged = train(model, 2, updates_per_rollout=3, batch_size=1).values
    assert logged["intrinsic/loss"] == 2.5  # of 0 to 5
