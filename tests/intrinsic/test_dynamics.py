"""What ICM and disagreement share: novelty of transitions, inputs of all kinds, precision, state, use in RPG and SAC."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC

from sb3_rpg import RPG
from sb3_rpg.intrinsic import (
    ICM,
    INTRINSIC_REWARDS,
    Disagreement,
    IntrinsicReplayBuffer,
    IntrinsicReward,
    IntrinsicRewardCallback,
    make_intrinsic_reward,
)
from sb3_rpg.intrinsic.dynamics import DynamicsReward
from tests.conftest import labelled_vec_env, small_rpg

OBS = spaces.Box(-1, 1, (2,))
ACT = spaces.Box(-1, 1, (2,))
Transitions = tuple[th.Tensor, th.Tensor, th.Tensor]

NAMES = ("icm", "disagreement")
both = pytest.mark.parametrize("name", NAMES)


def make(name: str, obs: spaces.Space = OBS, act: spaces.Space = ACT, **kwargs: Any) -> Any:
    th.manual_seed(0)
    arguments = {"width": 32, "device": "cpu", "warmup_updates": 0, **kwargs}
    return make_intrinsic_reward(name, obs, act, **arguments)


def walk(n: int, low: float = -1.0, high: float = 0.0) -> Transitions:
    """Steps of 0.3 times the action, from positions in [low, high]."""
    obs, actions = low + (high - low) * th.rand(n, 2), 2 * th.rand(n, 2) - 1
    return obs, actions, obs + 0.3 * actions


def state_of(bonus: IntrinsicReward) -> dict[str, th.Tensor]:
    return {key: value.clone() for key, value in bonus.state_dict().items()}


def assert_same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> None:
    assert first.keys() == second.keys() and all(th.equal(first[key], second[key]) for key in first)


@both
def test_error_falls_on_repeated_transitions_and_stays_high_on_new_ones(name: str) -> None:
    bonus = make(name, width=64, normalize=False, learning_rate=2e-3)
    seen, new = walk(256), walk(256, 1.5, 2.5)
    before = bonus.errors(*seen).mean()
    for _ in range(100):
        bonus.update(*walk(128))
    assert bonus.errors(*seen).mean() < before / 10
    assert bonus.errors(*new).mean() > 5 * bonus.errors(*seen).mean()
    assert bonus.bonus(*new).mean() > 0.05 > bonus.bonus(*seen).mean()


@both
def test_bonus_changes_nothing_and_update_all_networks(name: str) -> None:
    bonus = make(name)
    bonus.update(*walk(32))
    before = state_of(bonus)
    result = bonus.bonus(*walk(32))
    assert result.shape == (32,) and result.dtype == th.float32 and not result.requires_grad
    assert_same(before, state_of(bonus))
    metrics = bonus.update(*walk(32))
    after = state_of(bonus)
    assert not any(th.equal(before[key], after[key]) for key in before if key.startswith("networks"))
    assert set(metrics) == {"loss", "error_mean", "error_std", "bonus_mean"}
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


@both
def test_bonus_is_normalised_as_every_intrinsic_reward(name: str) -> None:
    bonus = make(name, scale=0.3, clip=1.5)
    for _ in range(5):
        bonus.update(*walk(64))
    transitions = walk(64, -1, 2)
    errors = bonus.errors(*transitions).detach()
    standardised = (errors - bonus.statistics.mean) / bonus.statistics.variance.sqrt()
    th.testing.assert_close(bonus.bonus(*transitions), 0.3 * standardised.clamp(-1.5, 1.5))
    assert bonus.statistics.count == 5 * 64


@both
def test_the_action_makes_a_difference(name: str) -> None:
    bonus = make(name)
    obs, actions, next_obs = walk(16)
    assert not th.allclose(bonus.errors(obs, actions, next_obs), bonus.errors(obs, -actions, next_obs))


class Spaces:
    """A space with a batch of 6 of its observations as a replay buffer stores them."""

    box = (spaces.Box(-1, 1, (3,), np.float64), th.rand(6, 3))
    matrix = (spaces.Box(-1, 1, (2, 3)), th.rand(6, 2, 3))
    uint8 = (spaces.Box(0, 255, (3,), np.uint8), th.randint(0, 256, (6, 3), dtype=th.uint8))
    discrete = (spaces.Discrete(5), th.randint(0, 5, (6, 1)))
    multi_discrete = (spaces.MultiDiscrete([3, 2]), th.randint(0, 2, (6, 2)))
    binary = (spaces.MultiBinary(4), th.randint(0, 2, (6, 4), dtype=th.int8))
    mapping = (
        spaces.Dict({"position": spaces.Box(-9, 9, (2,)), "step": spaces.Discrete(4)}),
        {"position": th.rand(6, 2), "step": th.randint(0, 4, (6, 1))},
    )


@both
@pytest.mark.parametrize("kind", [kind for kind in vars(Spaces) if not kind.startswith("_")])
@pytest.mark.parametrize(
    ("action_space", "actions"),
    [(ACT, th.rand(6, 2)), (spaces.Box(-2, 6, (2, 2)), th.rand(6, 4)), (spaces.Discrete(3), th.randint(0, 3, (6, 1)))],
    ids=["box", "matrix of actions", "discrete"],
)
def test_every_kind_of_observation_and_action(name: str, kind: str, action_space: spaces.Space, actions: th.Tensor) -> None:
    space, obs = getattr(Spaces, kind)
    bonus = make(name, space, action_space, width=8)
    metrics = bonus.update(obs, actions, obs)
    errors = bonus.errors(obs, actions, obs)
    assert errors.shape == (6,) and errors.dtype == th.float32
    assert all(th.isfinite(value) for value in metrics.values()) and th.isfinite(bonus.bonus(obs, actions, obs)).all()


@both
def test_features_are_those_of_the_objects_of_interest(name: str) -> None:
    bonus = make(name, indices=[1], n_frequencies=2)
    assert bonus.features.dim == 2 + 5
    space = spaces.Dict({"desired_goal": OBS, "position": OBS})
    blind = make(name, space, keys=["position"], indices={"position": 0})
    obs = {"desired_goal": th.rand(4, 2), "position": th.rand(4, 2)}
    moved = {**obs, "desired_goal": th.rand(4, 2) + 9}
    assert blind.features.dim == 2 + 13
    assert th.equal(blind.errors(obs, th.zeros(4, 2), obs), blind.errors(moved, th.zeros(4, 2), moved))


@both
def test_autocast_ranks_as_float32_does_and_keeps_float32_results(name: str) -> None:
    bonus = make(name, width=64, indices=":", normalize=False)
    for _ in range(60):
        with th.autocast("cpu", th.bfloat16):
            metrics = bonus.update(*walk(128))
    transitions = walk(512, -1.0, 2.0)
    exact = bonus.bonus(*transitions)
    with th.autocast("cpu", th.bfloat16):
        rough = bonus.bonus(*transitions)
    assert rough.dtype == bonus.statistics.mean.dtype == metrics["loss"].dtype == th.float32
    assert all(parameter.dtype == th.float32 for parameter in bonus.parameters())
    ranks = [values.argsort().argsort().double() for values in (exact, rough)]
    assert th.corrcoef(th.stack(ranks))[0, 1] > 0.98


@both
def test_one_autocast_for_many_updates_is_as_one_for_each(name: str) -> None:
    one, many = make(name), make(name)
    batches = [walk(32) for _ in range(4)]
    with th.autocast("cpu", th.bfloat16):
        for transitions in batches:
            one.update(*transitions)
    for transitions in batches:
        with th.autocast("cpu", th.bfloat16):
            many.update(*transitions)
    assert_same(state_of(one), state_of(many))


@both
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda bonus: pickle.loads(pickle.dumps(bonus))])
def test_copies_go_on_alike(name: str, duplicate: Any) -> None:
    bonus = make(name)
    with th.autocast("cpu", th.bfloat16):
        bonus.update(*walk(32))
        other = duplicate(bonus)
        for transitions in (walk(32), walk(32)):
            bonus.update(*transitions)
            other.update(*transitions)
    assert_same(state_of(bonus), state_of(other))
    assert all(value.is_floating_point() for value in state_of(bonus).values())


@both
def test_another_device(name: str) -> None:
    bonus = make(name)
    bonus.update(*walk(8))
    bonus.to("meta")
    moments = [value for state in bonus.optimizer.state.values() for value in state.values()]
    assert moments and {value.device.type for value in moments} == {"meta"}
    assert bonus.update(*[part.to("meta") for part in walk(8)])["loss"].device.type == "meta"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("icm", {"act": spaces.MultiBinary(3)}, r"ICM .* `action_space`=MultiBinary\(3\); use `intrinsic_reward='rnd'`"),
        ("disagreement", {"n_members": 1}, "`n_members` must be an integer of at least 2, got 1"),
        ("icm", {"feature_dim": 1}, "`feature_dim` must be an integer of at least 2, got 1"),
        ("icm", {"forward_weight": 1.0}, r"`forward_weight` must be a number between 0 and 1 .* got 1\.0"),
        ("icm", {"clip": 0}, "`clip`"),
        ("disagreement", {"indices": [7]}, "Index 7 is outside"),
    ],
)
def test_wrong_arguments_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **arguments)


def test_the_registry_knows_them() -> None:
    assert type(make("icm")) is ICM and type(make("ICM")) is ICM and type(make("disagreement")) is Disagreement
    with pytest.raises(ValueError, match="known are ") as error:
        make("curiosity")
    assert all(f"'{name}'" in str(error.value) for name in [*INTRINSIC_REWARDS, "none"])  # whatever else is registered


# ------------------------------------------------------------- in algorithms


@both
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rpg_learns_with_it_is_saved_and_goes_on(name: str, precision: str) -> None:
    model = small_rpg(labelled_vec_env(2), intrinsic_reward=name, precision=precision).learn(40)
    assert isinstance(model.bonus, DynamicsReward) and model.bonus.statistics.count > 0
    file = io.BytesIO()
    model.save(file)
    loaded = RPG.load(file, env=labelled_vec_env(2), device="cpu")
    assert isinstance(loaded.bonus, DynamicsReward) and type(loaded.bonus) is type(model.bonus)
    assert_same(state_of(model.bonus), state_of(loaded.bonus))
    first, second = (bonus.optimizer.state_dict()["state"] for bonus in (model.bonus, loaded.bonus))
    assert first.keys() == second.keys() and len(first) > 0
    for key in first:
        assert all(th.equal(value, second[key][entry]) for entry, value in first[key].items())
    before = float(loaded.bonus.n_updates)
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.bonus.n_updates > before


@both
def test_rpg_with_dict_observations(name: str) -> None:
    kwargs = {"width": 8, "warmup_updates": 2, "indices": {"label": "0:2"}, "keys": ["label"]}
    env = labelled_vec_env(2, space="dict")
    model = small_rpg(env, "MultiInputPolicy", intrinsic_reward=name, intrinsic_reward_kwargs=kwargs).learn(40)
    assert model.bonus is not None and model.bonus.features.dim == 3 + 26


@both
@pytest.mark.parametrize(("algorithm", "env"), [(SAC, "Pendulum-v1"), (DQN, "CartPole-v1")])
def test_other_algorithms_learn_with_it(name: str, algorithm: Any, env: str) -> None:
    kwargs = {"intrinsic_reward": name, "intrinsic_reward_kwargs": {"width": 8, "warmup_updates": 2}}
    model = algorithm(
        "MlpPolicy",
        env,
        replay_buffer_class=IntrinsicReplayBuffer,
        replay_buffer_kwargs=kwargs,
        policy_kwargs={"net_arch": [8]},
        learning_starts=30,
        buffer_size=200,
        batch_size=16,
        device="cpu",
        seed=0,
    )
    model.learn(80, callback=IntrinsicRewardCallback(batch_size=16))
    sampled = model.replay_buffer.sample(32)
    assert model.replay_buffer.intrinsic_reward.statistics.count > 0
    extrinsic = model.replay_buffer.rewards[: model.replay_buffer.pos].reshape(-1)
    assert th.isfinite(sampled.rewards).all() and not np.isin(sampled.rewards.numpy(), extrinsic).all()


@pytest.mark.parametrize("name", ["icm", "disagreement"])
def test_observations_are_standardised_by_those_that_follow(name: str) -> None:
    bonus = make(name)
    obs, actions, next_obs = walk(32)
    bonus.update(obs, actions, next_obs)
    th.testing.assert_close(bonus.features.statistics.mean, next_obs.mean(dim=0))
