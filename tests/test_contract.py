"""What SB3's users do with SAC, done with RPG: wrappers, callbacks, spaces, policy arguments, awkward environments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import (
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import get_parameters_by_name
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    is_vecenv_wrapped,
)

from sb3_rpg import RPG
from tests.conftest import SMALL_POLICY, LabelledEnv, changed, env_makers, labelled_vec_env, parameters_of, small_rpg

# ------------------------------------------------------------------- arguments


def test_every_argument_of_sac_is_one_of_rpg_with_the_same_position_up_to_the_last_common_one() -> None:
    import inspect

    sac, rpg = (list(inspect.signature(cls.__init__).parameters) for cls in (SAC, RPG))
    assert set(sac) <= set(rpg)
    common = [name for name in rpg if name in sac]
    assert common[:-1] == sac[: len(common) - 1]  # _init_setup_model is last in both


@pytest.mark.parametrize(
    "policy_kwargs",
    [
        {"net_arch": [8]},
        {"net_arch": {"pi": [8], "qf": [8, 8], "model": []}},
        {"activation_fn": th.nn.Tanh},
        {"n_critics": 1},
        {"n_critics": 5},
        {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"eps": 1e-3}},
        {"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 1e-3}},
    ],
)
def test_policy_arguments(policy_kwargs: dict[str, Any], tmp_path: Path) -> None:
    model = small_rpg(policy_kwargs={**SMALL_POLICY, **policy_kwargs}).learn(20)
    model.save(tmp_path / "model")
    loaded = RPG.load(tmp_path / "model", env=LabelledEnv(), device="cpu")
    assert changed(parameters_of(model.policy), loaded.policy) == set()
    assert loaded.learn(20).num_timesteps == 20


class Convolutions(BaseFeaturesExtractor):
    def __init__(self, observation_space: spaces.Box, features_dim: int = 12):
        super().__init__(observation_space, features_dim)
        channels = observation_space.shape[0]
        self.net = th.nn.Sequential(th.nn.Conv2d(channels, 4, 8, stride=4), th.nn.ReLU(), th.nn.Flatten())
        with th.no_grad():
            width = self.net(th.zeros(1, *observation_space.shape)).shape[1]
        self.head = th.nn.Linear(width, features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.head(self.net(observations))


def test_own_features_extractor_is_trained_and_followed_by_the_target() -> None:
    kwargs = {**SMALL_POLICY, "features_extractor_class": Convolutions, "features_extractor_kwargs": {"features_dim": 6}}
    model = small_rpg(LabelledEnv(space="image"), "CnnPolicy", policy_kwargs=kwargs)
    online, target = (m.encoder.features_extractor for m in (model.world_model, model.world_model_target))
    before = parameters_of(online), parameters_of(target)
    model.learn(30)
    assert changed(before[0], online) == changed(before[1], target) == set(before[0])
    assert get_parameters_by_name(model.policy, ["features_extractor"])


# ------------------------------------------------------------- vectorised environments


@pytest.mark.parametrize("channels_last", [True, False])
def test_stacked_images_plain_and_with_normalised_rewards(channels_last: bool) -> None:
    env: VecEnv = labelled_vec_env(2, space="image")
    env = VecFrameStack(env, 3, channels_order="last")
    if not channels_last:
        # Transposed first: SB3 itself would do it outside of VecNormalize, whose original observations it then stores
        env = VecNormalize(VecTransposeImage(env), norm_obs=False)
    model = small_rpg(env, "CnnPolicy").learn(40)
    wrapped = model.get_env()
    assert wrapped is not None and is_vecenv_wrapped(wrapped, VecTransposeImage)
    assert model.observation_space.shape == (3, 36, 36)
    stored = model.replay_buffer.observations
    assert stored.dtype == np.uint8 and stored.shape[2:] == (3, 36, 36)
    # predict() takes channel-last images too
    image = np.random.default_rng(0).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    last = model.predict(image, deterministic=True)[0]
    first = model.predict(image.transpose(2, 0, 1), deterministic=True)[0]
    assert np.array_equal(last, first) and model.action_space.contains(last)


def test_subprocesses_and_vec_monitor(tmp_path: Path) -> None:
    env = VecMonitor(SubprocVecEnv(list(env_makers(2, lengths=(5,))), start_method="spawn"), str(tmp_path / "monitor.csv"))
    model = small_rpg(env).learn(40)
    assert model.num_timesteps == 40 and len(model.ep_info_buffer or ()) == 8
    env.close()
    assert len((tmp_path / "monitor.csv").read_text().splitlines()) == 10


def test_dict_observations_with_vec_normalize_of_some_keys() -> None:
    env = VecNormalize(labelled_vec_env(2, space="dict"), norm_obs_keys=["extra"])
    model = small_rpg(env, "MultiInputPolicy").learn(40)
    assert evaluate_policy(model, env, 3, warn=False)[0] is not None


# ------------------------------------------------------------------- callbacks


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_evaluation_callbacks_stop_and_keep_the_best_model(tmp_path: Path) -> None:
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=1, min_evals=1)
    callback = EvalCallback(
        labelled_vec_env(1),
        eval_freq=5,
        n_eval_episodes=2,
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        callback_after_eval=stop,
        callback_on_new_best=CheckpointCallback(1, str(tmp_path / "best")),
        verbose=0,
    )
    model = small_rpg().learn(1000, callback)
    assert model.num_timesteps == 15  # the return is always the same: no improvement at the second and third evaluation
    with np.load(tmp_path / "evaluations.npz") as log:
        assert log["timesteps"].tolist() == [5, 10, 15] and (log["results"] == 28.0).all()
    best = RPG.load(tmp_path / "best_model", device="cpu")
    assert best.num_timesteps == 5


def test_a_reward_threshold_stops_training() -> None:
    callback = EvalCallback(
        Monitor(LabelledEnv()), eval_freq=4, callback_on_new_best=StopTrainingOnRewardThreshold(20.0, verbose=0), verbose=0
    )
    assert small_rpg().learn(100, callback).num_timesteps == 4


def test_nested_callbacks_and_progress_bar() -> None:
    counts = EveryNTimesteps(7, StopTrainingOnMaxEpisodes(3))
    assert small_rpg().learn(100, [counts], progress_bar=True).num_timesteps == 21


# ---------------------------------------------------------------------- spaces


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32, np.uint8])
@pytest.mark.parametrize("shape", [(1,), (3, 2)])
def test_box_observations_of_other_types_and_shapes(dtype: Any, shape: tuple[int, ...]) -> None:
    class Typed(LabelledEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Box(0, 100, shape, dtype)

        def _observation(self) -> Any:
            return np.full(shape, self.step_number, dtype=dtype)

    model = small_rpg(Typed()).learn(30)
    obs = model.observation_space.sample()
    assert model.action_space.contains(model.predict(obs)[0])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1e-3), (-1e4, 1e4), ([-1.0, 3.0], [0.5, 7.0])])
def test_actions_stay_within_their_bounds(low: Any, high: Any) -> None:
    class Bounded(LabelledEnv):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = spaces.Box(np.broadcast_to(low, 2), np.broadcast_to(high, 2), dtype=np.float64)

    model = small_rpg(Bounded()).learn(30)
    for deterministic in (True, False):
        actions = model.predict(np.zeros((50, 3), dtype=np.float32), deterministic=deterministic)[0]
        assert actions.shape == (50, 2)
        assert (actions >= np.asarray(low) - 1e-6).all() and (actions <= np.asarray(high) + 1e-6).all()


def test_spaces_of_another_environment_are_refused() -> None:
    model = small_rpg()
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(DummyVecEnv([lambda: LabelledEnv(space="dict")]))
    with pytest.raises(ValueError, match="Action spaces do not match"):
        model.set_env(DummyVecEnv([lambda: LabelledEnv(action_shape=(3,))]))


def test_gym_ids_and_unseeded_models() -> None:
    model = RPG("MlpPolicy", "Pendulum-v1", learning_starts=20, policy_kwargs=SMALL_POLICY, batch_size=8, buffer_size=100)
    model.learn(40)
    assert model.seed is None and model.replay_buffer.full is False
    assert evaluate_policy(model, make_vec_env("Pendulum-v1"), 1, warn=False)[0] is not None


# ------------------------------------------------------- awkward environments


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("terminates", [True, False])
def test_episodes_shorter_than_the_horizon(length: int, terminates: bool) -> None:
    model = small_rpg(labelled_vec_env(2, lengths=(length,), terminates=terminates), horizon=3).learn(60)
    mask = model.replay_buffer.sample_segments(50, 3).mask
    assert mask.sum(dim=0).max() <= length
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_an_episode_that_never_ends() -> None:
    model = small_rpg(LabelledEnv(lengths=(10**9,)), buffer_size=50, latent="categorical").learn(200)
    assert model._n_updates > 100 and len(model.replay_buffer.start_index) == 0
    assert len(np.unique(model.replay_buffer.latents[:, 0], axis=0)) == 1


@pytest.mark.parametrize("reward", [1e30, -1e30, 1e-30])
def test_rewards_of_any_size_leave_every_parameter_finite(reward: float) -> None:
    model = small_rpg(LabelledEnv(reward=reward)).learn(80)
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    assert np.isfinite(model.predict(np.zeros(3, dtype=np.float32))[0]).all()


def test_an_environment_that_resets_itself_within_step() -> None:
    class SelfResetting(LabelledEnv):
        """Starts over without telling, as some simulators do after a fault."""

        def step(self, action: np.ndarray) -> Any:
            obs, reward, terminated, truncated, info = super().step(action)
            if self.step_number == 3 and self.episode % 2 == 0:
                obs, info = self.reset()
            return obs, reward, terminated, truncated, info

    model = small_rpg(SelfResetting()).learn(80)
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_observations_of_another_shape_than_declared_are_not_stored() -> None:
    class Liar(LabelledEnv):
        def step(self, action: np.ndarray) -> Any:
            obs, *rest = super().step(action)
            return (obs[:2] if self.step_number == 5 else obs, *rest)

    with pytest.raises(ValueError, match=r"could not broadcast input array from shape"):
        small_rpg(Liar()).learn(30)


# -------------------------------------------------------------------- long runs


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_many_updates_need_no_more_memory_and_stay_finite(precision: str) -> None:
    n_updates = int(os.environ.get("SB3_RPG_UPDATES", "20000"))
    env = Monitor(gym.make("RPGMaze-v0"))
    model = small_rpg(env, buffer_size=5000, train_freq=1, gradient_steps=10, precision=precision)
    model.learn(n_updates // 100)
    errors, sizes = [], []
    for _ in range(10):
        model.learn(n_updates // 100, reset_num_timesteps=False)
        segments = model.replay_buffer.sample_segments(1000, model.horizon)
        with th.no_grad():
            replayed = model.world_model.replay(model.world_model.encoder(segments.observations), segments.actions)
            encoded = model.world_model_target.encoder(segments.next_observations.flatten(0, 1))  # type: ignore[union-attr]
        error = (replayed.states.flatten(0, 1) - encoded).square().mean() / encoded.var()
        errors.append(float(error))
        sizes.append(resident_mib())
    print(f"{precision}: {model._n_updates} updates, resident {sizes[0]:.0f} -> {sizes[-1]:.0f} MiB, errors {errors}")
    assert sizes[-1] - sizes[0] < 20.0, sizes
    assert np.mean(errors[-3:]) < 2.0 * np.mean(errors[:3]) + 0.05, errors
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
