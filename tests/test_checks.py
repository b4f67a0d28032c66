"""Bad arguments and environments: refused before training starts, by an error that names argument, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn

from sb3_rpg import RPG, presets
from sb3_rpg.checks import check_finite, check_horizon
from tests.conftest import LabelledEnv, small_rpg


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "`horizon` must be an integer of at least 1, got 0; 3 is the paper's"),
        ({"horizon": 2.0}, r"`horizon` must be an integer of at least 1, got 2\.0"),
        ({"horizon": True}, "`horizon` must be an integer of at least 1, got True"),
        ({"head_steps": 0}, "`head_steps` must be an integer of at least 1, got 0; 1 is the fastest, None means all"),
        ({"target_horizon": 0}, "`target_horizon` must be .* got 0; 1 is the fastest, None means `horizon`"),
        ({"policy_delay": 0}, "`policy_delay` must be an integer of at least 1, got 0"),
        ({"actor_batch_size": 0}, "`actor_batch_size` must be an integer of at least 1, got 0"),
        ({"target_update_interval": 0}, "`target_update_interval` must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
        ({"buffer_size": 0}, "`buffer_size` must be an integer of at least 1, got 0"),
        ({"buffer_size": 1e5}, r"`buffer_size` must be an integer of at least 1, got 100000\.0"),
        ({"gradient_steps": -2}, "`gradient_steps` must be an integer of at least -1, got -2; -1 means"),
        ({"gradient_steps": 1.5}, r"`gradient_steps` must be an integer of at least -1, got 1\.5"),
        ({"intrinsic_batch_size": 0}, "`intrinsic_batch_size` must be an integer of at least 1, got 0"),
        ({"plan_every": -1}, "`plan_every` must be .* got -1; None never plans, 0 plans at an episode's start only"),
        ({"plan_horizon": 0}, "`plan_horizon` must be an integer of at least 1, got 0"),
        ({"gamma": 1.1}, r"`gamma` must be a number in \(0, 1\], got 1\.1"),
        ({"gamma": "0.99"}, r"`gamma` must be a number in \(0, 1\], got '0\.99'"),
        ({"tau": 0.0}, r"`tau` must be a number in \(0, 1\], got 0\.0"),
        ({"tau": None}, r"`tau` must be a number in \(0, 1\], got None"),
        ({"value_weight_decay": 0.0}, r"`value_weight_decay` must be a number above 0.*got 0\.0"),
        ({"max_grad_norm": None}, r"`max_grad_norm` must be a number of at least 0 \(0: no clipping\), got None"),
        ({"max_grad_norm": -1.0}, r"`max_grad_norm` must be .* got -1\.0"),
        ({"model_lr_factor": 0.0}, r"`model_lr_factor` must be a number above 0, got 0\.0"),
        ({"ent_coef_lr_factor": 0.0}, r"`ent_coef_lr_factor` must be a number above 0, got 0\.0"),
        ({"ent_coef_lr_factor": None}, "`ent_coef_lr_factor` must be a number above 0, got None"),
        ({"latent_relabel": 1.5}, r"`latent_relabel` must be a number in \[0, 1\], or 'auto', got 1\.5"),
        ({"latent_relabel": "atuo"}, r"`latent_relabel` must be a number in \[0, 1\], or 'auto', got 'atuo'"),
        ({"precision": "fp16"}, "`precision` must be one of auto, bf16, fp32, got 'fp16'"),
        ({"loss_weights": {"rewards": 1.0}}, r"`loss_weights` has unknown terms \['rewards'\]; known: consistency, reward"),
        ({"loss_weights": {"reward": -1.0}}, r"`loss_weights\['reward'\]` must be a number of at least 0 .*got -1\.0"),
        ({"loss_weights": {"value": float("nan")}}, r"`loss_weights\['value'\]` must be a number .*got nan"),
        ({"n_steps": 3}, "`n_steps=3` is not supported.*use `horizon` and `target_horizon` instead"),
        ({"use_sde": True}, "`use_sde=True` is not supported: z, constant within an episode"),
        ({"optimize_memory_usage": True}, "`optimize_memory_usage=True` is not supported.*reduce `buffer_size` instead"),
        ({"ent_coef": "autoo"}, "`ent_coef` must be 'auto', 'auto_<initial value>' or a number, got 'autoo'"),
        ({"ent_coef": "auto_x"}, "`ent_coef` must be 'auto', 'auto_<initial value>' or a number, got 'auto_x'"),
        ({"ent_coef": "auto_0"}, "`ent_coef` must be .* got 'auto_0'"),
        ({"ent_coef": "auto_inf"}, "`ent_coef` must be .* got 'auto_inf'"),
        ({"ent_coef": -0.1}, r"`ent_coef` must be a number of at least 0.*got -0\.1"),
        ({"target_entropy": "low"}, "`target_entropy` must be a number or 'auto', got 'low'"),
        ({"target_entropy": float("inf")}, "`target_entropy` must be a number or 'auto', got inf"),
        ({"beta": -0.1}, r"`beta` must be a number of at least 0, a function .* or a Ramp, got -0\.1"),
        ({"beta": {"initial": 1.0}}, "`beta`={'initial': 1.0} is no Ramp: give initial, final, start and end"),
        ({"latent_ent_coef": "auto_0"}, "`latent_ent_coef` must be 'auto', 'auto_<initial value>' or a number, got 'auto_0'"),
        ({"latent_target_entropy": "high"}, "`latent_target_entropy` must be a number, a schedule, .*'auto', got 'high'"),
        (
            {"latent": "categorical", "latent_target_entropy": 2.0},
            r"`latent_target_entropy=2\.0` is out of reach: .*'categorical' can have 0 to 1\.099 nats",
        ),
        (
            {"latent": "learned_gaussian", "latent_target_entropy": {"initial": 4.0, "final": -9.0, "start": 0, "end": 10}},
            r"`latent_target_entropy=Ramp\(.*\)` is out of reach: .* can have -4\.743 to 7\.257 nats",
        ),
        ({"learning_starts": float("nan")}, "`learning_starts` must be a number of at least 0, got nan"),
        ({"learning_starts": "10"}, "`learning_starts` must be a number of at least 0, got '10'"),
        ({"train_freq": 0}, r"`train_freq` must be an integer of at least 1, got 0; steps, or \(number"),
        ({"train_freq": (0, "episode")}, "`train_freq` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"state_dim": 0}}, "`state_dim` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"hidden_dim": 0}}, "`hidden_dim` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"n_critics": 0}}, "`n_critics` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"n_mixture": 0}}, "`n_mixture` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"std_scale": 0.0}}, r"`std_scale` must be a number above 0, got 0\.0"),
        ({"latent": "none", "latent_kwargs": {"std": 1.0}}, r"`latent_kwargs`=\{'std': 1\.0\} do not fit latent='none'"),
        (
            {"intrinsic_reward_kwargs": {"scale": float("nan")}},
            "`scale` must be a number other than inf and nan, the weight of the bonus, got nan",
        ),
        ({"intrinsic_reward_kwargs": {"scale": "1e-1"}}, "`scale` must be a number .* got '1e-1'"),
        ({"intrinsic_reward_kwargs": {"learning_rate": "3e-4"}}, "`learning_rate` must be a number above 0, got '3e-4'"),
        ({"intrinsic_reward_kwargs": {"n_frequencies": 2.5}}, r"`n_frequencies` must be an integer of at least 0, got 2\.5"),
        ({"intrinsic_reward_kwargs": {"width": 0}}, "`width` must be an integer of at least 1, got 0"),
        ({"intrinsic_reward_kwargs": {"obs_scale": float("nan")}}, "`obs_scale` must be a number other than inf and nan, got"),
        ({"intrinsic_reward_kwargs": {"device": "cpu"}}, "has a `device`: it is the model's, give it to RPG"),
        ({"policy_kwargs": {"net_arch": [0]}}, "`net_arch` must be an integer of at least 1, got 0"),
        ({"policy_kwargs": {"net_arch": 256}}, r"`net_arch` must hold lists of widths, such as \[256, 256\], got 256"),
        ({"intrinsic_reward_kwargs": {"indexes": [0]}}, r"`intrinsic_reward_kwargs`=.* do not fit RND: .*'indexes'"),
        ({"latent_ent_coef": None}, "`latent_ent_coef` must be a number of at least 0.*got None"),
        ({"reward_scale": "atuo"}, "`reward_scale` must be .*'auto'.*got 'atuo'"),
        ({"latent": "gauss"}, "`latent` must be one of gaussian, .*, got 'gauss'"),
        ({"latent_dim": 0}, "`latent_dim` must be an integer of at least 1, got 0; use latent='none'"),
        *(
            (
                {"intrinsic_reward": name, "intrinsic_reward_kwargs": {"scal": 1.0}},
                rf"`intrinsic_reward_kwargs`=\{{'scal': 1\.0\}} do not fit {kind}: .*'scal'",
            )
            for name, kind in (("icm", "ICM"), ("disagreement", "Disagreement"))
        ),
        ({"latent_kwargs": {"std": 1.0}}, r"`latent_kwargs`=\{'std': 1\.0\} do not fit latent='gaussian'"),
        ({"intrinsic_reward": "icmm"}, "(?i)intrinsic reward 'icmm'; known are .*'rnd'"),
        ({"intrinsic_reward": 3}, "(?i)intrinsic reward .*not 3"),
        ({"intrinsic_reward_kwargs": {"indices": [0, 7]}}, "Index 7 is outside the observation, which has 3 values"),
        ({"train_freq": None}, "`train_freq` must be an integer and not None"),
        ({"train_freq": "often"}, "`train_freq` must be an integer and not often"),
        ({"train_freq": (1, "minute")}, "unit of the `train_freq` must be either 'step' or 'episode' not 'minute'"),
        ({"replay_buffer_class": NStepReplayBuffer}, "`replay_buffer_class=NStepReplayBuffer` does not store z; use None"),
        ({"replay_buffer_class": HerReplayBuffer}, "`replay_buffer_class=HerReplayBuffer` needs Dict observations"),
        ({"policy_kwargs": {"net_arch": {"vf": [8]}}}, r"`net_arch` has unknown keys \['vf'\]; known: pi"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_rpg(**arguments)


class Other(LabelledEnv):
    """Another action space, or another observation space."""

    def __init__(self, actions: spaces.Space | None = None, obs: spaces.Space | None = None):
        super().__init__()
        self.action_space = self.action_space if actions is None else actions
        self.observation_space = self.observation_space if obs is None else obs


@pytest.mark.parametrize(
    "actions",
    [spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), spaces.MultiBinary(2), spaces.Dict({"a": spaces.Box(-1, 1, (1,))})],
)
def test_unsupported_action_spaces_are_an_assertion_error_as_sb3_promises(actions: spaces.Space) -> None:
    with pytest.raises(AssertionError):
        small_rpg(Other(actions))


def test_unbounded_actions_are_refused() -> None:
    with pytest.raises(AssertionError, match="finite lower and upper bound"):
        small_rpg(Other(spaces.Box(-np.inf, np.inf, (1,))))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            spaces.Box(np.array([-1, 0.3], np.float32), np.array([1, 0.3], np.float32)),
            r"reaches from 0\.3.* to 0\.3.* in dimension 1, which cannot be scaled to \[-1, 1\]: leave the dimension out",
        ),
        (
            spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2, 1)),
            r"in dimension \(0, 0\), which cannot be scaled to \[-1, 1\]: give bounds that actions really reach",
        ),
        (spaces.Box(-5, 5, (2,), np.int32), "has actions of type int32, .* declare it with dtype=np.float32"),
    ],
)
def test_actions_that_cannot_be_scaled_are_refused(actions: spaces.Box, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_rpg(Other(actions))


@pytest.mark.parametrize("plan_every", [-1, 2.5])
def test_bad_arguments_of_predict(plan_every: Any) -> None:
    with pytest.raises(ValueError, match=f"`plan_every` must be an integer of at least 0, got {plan_every}"):
        small_rpg().predict(np.zeros(3, np.float32), plan_every=plan_every)


def test_rnd_on_images_is_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"(?i)image"):
        small_rpg(LabelledEnv(space="image"), "CnnPolicy", intrinsic_reward="rnd")


def test_policy_and_observation_space_must_fit() -> None:
    with pytest.raises((AssertionError, ValueError)):
        small_rpg(LabelledEnv(space="dict"), "MlpPolicy")


@pytest.mark.parametrize("policy", ["MlpPolicie", "LstmPolicy"])
def test_unknown_policy_names_are_refused(policy: str) -> None:
    with pytest.raises(ValueError, match=f"Policy {policy} unknown"):
        small_rpg(policy=policy)


# -------------------------------------------------------------------- horizon


class Registered(LabelledEnv):
    spec = gym.envs.registration.EnvSpec("Short-v0", max_episode_steps=2)


def test_a_horizon_longer_than_an_episode_is_refused_at_once_and_when_an_environment_is_set_later() -> None:
    message = r"`horizon=3` is longer than an episode of Short-v0 can be \(max_episode_steps=2\); use `horizon=2` or less"
    with pytest.raises(ValueError, match=message):
        small_rpg(Registered())
    model = small_rpg()
    model.set_env(Registered())
    with pytest.raises(ValueError, match=message):
        model.learn(20)
    small_rpg(Registered(lengths=(2,)), horizon=2).learn(20)


def test_every_environment_of_a_vector_is_asked_and_those_without_a_limit_are_fine() -> None:
    makers: list[Callable[[], gym.Env]] = [LabelledEnv, Registered]
    with pytest.raises(ValueError, match="Short-v0"):
        check_horizon(DummyVecEnv(makers), 3)
    check_horizon(DummyVecEnv([LabelledEnv]), 1000)

    class WithoutSpecs(DummyVecEnv):
        def get_attr(self, attr_name: str, indices: Any = None) -> Any:
            raise AttributeError(attr_name)

    check_horizon(WithoutSpecs([LabelledEnv]), 1000)


def with_a_function_in_its_spec() -> gym.Env:
    return gym.wrappers.TransformReward(gym.make("Pendulum-v1"), lambda reward: 0.01 * float(reward))


def test_environments_in_other_processes_need_no_spec_that_can_leave_them() -> None:
    env = SubprocVecEnv([with_a_function_in_its_spec, with_a_function_in_its_spec])
    try:
        assert small_rpg(env).learn(20).num_timesteps == 20
    finally:
        env.close()


def test_learning_without_an_environment_says_how_to_give_one(tmp_path: Any) -> None:
    small_rpg().save(tmp_path / "model.zip")
    with pytest.raises(
        AssertionError, match=r"no environment: pass one to RPG\(\.\.\.\), RPG\.load\(\.\.\., env=\.\.\.\) or set_env"
    ):
        RPG.load(tmp_path / "model.zip", device="cpu").learn(10)


# -------------------------------------------------------------------- finite


def test_first_value_that_is_not_finite_is_reported_with_its_environment() -> None:
    values = np.zeros((3, 2), dtype=np.float32)
    check_finite("observation", values, 7)
    values[2, 1] = -np.inf
    with pytest.raises(ValueError, match=r"non-finite observation \(-inf\) in environment 2 at step 7; .*VecCheckNan"):
        check_finite("observation", values, 7)
    with pytest.raises(ValueError, match=r"non-finite observation\['b'\] \(-inf\) in environment 2 at step 7"):
        check_finite("observation", {"a": np.zeros((3, 1)), "b": values}, 7)
    with pytest.raises(ValueError, match=r"non-finite observation \(nan\) in environment 5 at step 7"):
        check_finite("observation", np.array([0.0, np.nan]), 7, env_index=5)


@pytest.mark.parametrize("kind", ["reward", "observation"])
def test_statistics_that_have_taken_in_what_is_not_finite_are_named(kind: str) -> None:
    class Glitch(LabelledEnv):
        def step(self, action: np.ndarray) -> Any:
            obs, reward, *rest = super().step(action)
            broken = self.episode == 2 and self.step_number == 3
            if kind == "reward":
                return obs, np.nan if broken else reward, *rest
            return np.where(broken, np.inf, obs).astype(np.float32), reward, *rest

    model = small_rpg(VecNormalize(DummyVecEnv([Glitch])))
    with pytest.raises(ValueError, match=rf"returned a non-finite {kind} .* in environment 0 at step 17"):
        model.learn(30)
    with pytest.raises(ValueError, match=rf"statistics of the {kind} are not finite at step 1[78]: it has taken in"):
        model.learn(30, reset_num_timesteps=False)  # the environment is healthy again
    assert np.isfinite(model.replay_buffer.rewards).all() and model.replay_buffer.size() == 16


def test_integers_need_no_check() -> None:
    check_finite("observation", 3, 0, env_index=1)
    check_finite("observation", {"mode": 1, "position": np.zeros(2)}, 0, env_index=1)
    check_finite("observation", np.zeros((2, 3), dtype=np.uint8), 0)
    check_finite("observation", {"image": np.zeros((2, 3), dtype=np.uint8)}, 0)


# ------------------------------------------------------------------- presets


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_are_valid_arguments(name: str) -> None:
    model = RPG("MlpPolicy", LabelledEnv(), **{**presets.PRESETS[name], "buffer_size": 100}, device="cpu")
    assert model.latent_space.name == "gaussian" and model.bonus is not None
    activations = {type(layer) for layer in model.policy.modules() if isinstance(layer, (nn.ELU, nn.ReLU, nn.Tanh))}
    assert activations == {nn.ELU}  # Appendix A of the paper
