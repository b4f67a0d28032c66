"""The latent-conditioned policy: z as SB3's recurrent state, reproducible choices, saving, construction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

from sb3_rpg.latents import make_latent_space
from sb3_rpg.policies import CnnPolicy, LatentActor, MultiInputPolicy, PlanningConfig, RPGPolicy
from tests.conftest import SMALL_POLICY, LabelledEnv, changed, parameters_of
from tests.small_policies import ACT, DIM, OBS, every_latent, make_policy, observations, with_latent

# ----------------------------------------------------------- z as the state


@every_latent
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("n", [1, 5])
def test_predict_returns_actions_in_the_spaces_own_scale_and_z(latent: str, deterministic: bool, n: int) -> None:
    policy = make_policy(latent)
    actions, state = policy.predict(observations(n), deterministic=deterministic)
    assert actions.shape == (n, 2) and actions.dtype == np.float32
    assert all(ACT.contains(action) for action in actions)
    assert isinstance(state, tuple) and len(state) == 1
    assert state[0].shape == (n, policy.latent_space.dim) and state[0].dtype == np.float32
    if policy.latent_space.dim:
        assert th.isfinite(policy.latent_space.log_prob(th.as_tensor(state[0]), _params(policy, n), 1.0)).all()


def _params(policy: RPGPolicy, n: int) -> th.Tensor | None:
    with th.no_grad():
        return policy.actor.latent_params(policy.actor.encoder(th.as_tensor(observations(n))))


def test_one_observation_gives_one_action() -> None:
    policy = make_policy()
    actions, state = policy.predict(observations()[0])
    assert actions.shape == (2,) and state[0].shape == (1, DIM)
    _, after = policy.predict(observations()[1], state, episode_start=np.array([False]))
    assert np.array_equal(after[0], state[0])


@with_latent
def test_z_is_kept_within_an_episode_and_drawn_anew_only_where_one_starts(latent: str) -> None:
    policy = make_policy(latent)
    _, state = policy.predict(observations(40))
    for episode_start in (None, np.zeros(40, dtype=bool)):
        _, same = policy.predict(observations(40), state, episode_start)
        assert np.array_equal(same[0], state[0])
    starts = np.arange(40) % 2 == 0
    _, mixed = policy.predict(observations(40), state, starts)
    assert np.array_equal(mixed[0][~starts], state[0][~starts])
    assert (mixed[0][starts] != state[0][starts]).any(axis=1).mean() > 0.4  # a category may come again


def test_every_environment_draws_its_own_z() -> None:
    z = make_policy().predict(np.zeros((6, 3), dtype=np.float32))[1][0]
    assert len(np.unique(z, axis=0)) == 6


def test_the_state_that_was_passed_is_not_written_to() -> None:
    policy = make_policy()
    z = np.ones((5, DIM), dtype=np.float32)
    policy.predict(observations(), (z,), np.array([True] * 5))
    assert np.all(z == 1.0)


@pytest.mark.usefixtures("no_warnings")
def test_the_returned_state_is_nobody_elses_array() -> None:
    policy, z = make_policy(), np.ones((2, DIM), dtype=np.float32)
    for planning in (None, PlanningConfig()):
        _, state = policy.predict(observations(2), (z,), planning=planning)
        assert not np.shares_memory(state[0], z) and state[0].flags.writeable


@pytest.mark.usefixtures("no_warnings")
@pytest.mark.parametrize("form", ["tuple", "array", "one z for all"])
def test_a_chosen_z_is_acted_with(form: str) -> None:
    policy = make_policy()
    z = np.full(DIM, 0.3, dtype=np.float32)
    state: Any = {"tuple": (np.tile(z, (5, 1)),), "array": np.tile(z, (5, 1)), "one z for all": z}[form]
    actions, after = policy.predict(observations(), state, deterministic=True)
    assert np.array_equal(after[0], np.tile(z, (5, 1)))
    with th.no_grad():
        encoded = policy.world_model.encoder(th.as_tensor(observations()))
        mode = policy.actor.action_head.mode(th.cat([encoded, th.as_tensor(after[0])], dim=1)).numpy()
    assert np.allclose(actions, np.array([-2.0, 0.0]) + (mode + 1) / 2 * np.array([8.0, 1.0]), atol=1e-5)
    assert not np.allclose(policy.predict(observations(), -after[0], deterministic=True)[0], actions)


def test_a_z_of_wrong_shape_is_refused_with_the_shape_that_is_needed() -> None:
    policy = make_policy()
    with pytest.raises(ValueError, match=r"latent of shape \(5, 3\), expected \(5, 4\): one z of 4 numbers for each of the 5"):
        policy.predict(observations(), (np.zeros((5, 3)),))
    with pytest.raises(ValueError, match=r"shape \(2, 4\), expected \(5, 4\).*pass the state that the last predict"):
        policy.predict(observations(), (np.zeros((2, DIM)),))
    with pytest.raises(ValueError, match=r"`observation` is a tuple.*pass `obs` alone"):
        policy.predict((observations(1)[0], {}))  # type: ignore[arg-type]


# ------------------------------------------------------ deterministic choices


@every_latent
def test_deterministic_predictions_need_no_state_to_be_reproducible_and_draw_no_random_numbers(latent: str) -> None:
    policy = make_policy(latent)
    before = th.get_rng_state()
    first, second = (policy.predict(observations(), deterministic=True) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1][0], second[1][0])
    assert th.equal(th.get_rng_state(), before)
    # Neither do they depend on what else is in the batch
    alone = policy.predict(observations()[2:3], deterministic=True)
    assert np.allclose(alone[0], first[0][2:3], atol=1e-5) and np.allclose(alone[1][0], first[1][0][2:3], atol=1e-5)


@with_latent
def test_deterministic_z_is_the_most_probable(latent: str) -> None:
    policy = make_policy(latent)
    z = th.as_tensor(policy.predict(observations(50), deterministic=True)[1][0])
    params, temperature = _params(policy, 50), float(policy.actor.latent_temperature)
    space = policy.latent_space
    highest = space.log_prob(z, params, temperature)
    for _ in range(20):
        drawn = space.sample(50, params, temperature, z.device)
        assert (highest >= space.log_prob(drawn, params, temperature) - 1e-5).all()
    if params is not None:
        assert len(th.unique(z, dim=0)) > 1


def test_categories_are_drawn_with_the_actors_temperature() -> None:
    policy = make_policy("categorical")
    obs, params = np.zeros((4000, 3), dtype=np.float32), th.tensor([0.0, 1.0, 2.0, 3.0])
    last: Any = policy.actor.latent_head[-1]  # type: ignore[index]
    nn.init.zeros_(last.weight)
    last.bias.data.copy_(params)
    for temperature in (0.5, 1.0, 5.0):
        policy.actor.latent_temperature.fill_(temperature)
        shares = policy.predict(obs)[1][0].mean(axis=0)
        assert np.allclose(shares, th.softmax(params / temperature, dim=0), atol=0.03)


@every_latent
def test_the_actor_alone_saved_and_loaded_predicts_what_the_policy_does(latent: str, tmp_path: Path) -> None:
    policy = make_policy(latent, std_scale=0.7, activation_fn=nn.Tanh)
    policy.actor.latent_temperature.fill_(0.3)
    policy.actor.save(str(tmp_path / "actor.zip"))
    actor = LatentActor.load(str(tmp_path / "actor.zip"), device="cpu")
    for deterministic in (True, False):
        th.manual_seed(4)
        expected = policy.predict(observations(), deterministic=deterministic)
        th.manual_seed(4)
        actions, state = actor.predict(observations(), deterministic=deterministic)
        assert np.allclose(actions, expected[0], atol=1e-6) and np.allclose(state[0], expected[1][0], atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "kind", "kwargs"),
    [
        (RPGPolicy, "vector", {"net_arch": {"pi": [12], "qf": [9], "model": [10, 10]}, "n_critics": 3, "std_scale": 0.7}),
        (CnnPolicy, "image", {"features_extractor_kwargs": {"features_dim": 16}}),
        (MultiInputPolicy, "dict", {}),
    ],
)
def test_policy_saved_and_loaded_is_the_same(cls: type[RPGPolicy], kind: str, kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = LabelledEnv(space=kind)
    space = spaces.Box(0, 255, (1, 36, 36), np.uint8) if kind == "image" else env.observation_space  # channels first
    policy = make_policy("learned_gaussian", space, cls, **kwargs)
    policy.save(str(tmp_path / "policy.zip"))
    loaded = cls.load(str(tmp_path / "policy.zip"), device="cpu")
    assert changed(parameters_of(policy), loaded) == set()
    obs = space.sample()
    expected = policy.predict(obs, deterministic=True)
    actions, state = loaded.predict(obs, deterministic=True)
    assert np.array_equal(actions, expected[0]) and np.array_equal(state[0], expected[1][0])


# ---------------------------------------------------------------- construction


def test_images_and_dicts_are_encoded() -> None:
    image = make_policy(obs=spaces.Box(0, 255, (1, 36, 36), np.uint8), cls=CnnPolicy)
    bright, dark = (
        image.predict(np.full((1, 36, 36), c, dtype=np.uint8), np.zeros(DIM), deterministic=True)[0] for c in (250, 0)
    )
    assert bright.shape == (2,) and not np.array_equal(bright, dark)

    space = LabelledEnv(space="dict").observation_space
    dictionary = make_policy(obs=space, cls=MultiInputPolicy)
    obs = {"label": np.ones((2, 3), dtype=np.float32), "extra": np.ones((2, 1), dtype=np.float32)}
    actions = dictionary.predict(obs, np.zeros(DIM), deterministic=True)[0]
    assert actions.shape == (2, 2)
    for key, value in obs.items():
        assert not np.allclose(dictionary.predict({**obs, key: -value}, np.zeros(DIM), deterministic=True)[0], actions)


def test_actions_of_any_shape_come_back_in_it() -> None:
    policy = make_policy(act=spaces.Box(-1, 1, (2, 3)))
    assert policy.predict(observations())[0].shape == (5, 2, 3)
    assert policy.predict(observations()[0])[0].shape == (2, 3)


@every_latent
def test_each_parameter_belongs_to_exactly_one_optimizer(latent: str) -> None:
    policy = make_policy(latent)
    optimizers = [policy.world_model.optimizer, policy.actor.optimizer]
    if policy.actor.latent_head is not None:
        optimizers.append(policy.actor.latent_optimizer)
    if policy.posterior.net is not None:
        optimizers.append(policy.posterior.optimizer)
    owned = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in policy.parameters() if p.requires_grad}
    assert {id(p) for p in policy.world_model.parameters()} == {
        id(p) for p in policy.world_model.optimizer.param_groups[0]["params"]
    }


def test_target_is_a_copy_that_nothing_trains() -> None:
    policy = make_policy()
    assert changed(parameters_of(policy.world_model), policy.world_model_target) == set()
    shared = {id(p) for p in policy.world_model.parameters()} & {id(p) for p in policy.world_model_target.parameters()}
    assert not shared
    assert not any(parameter.requires_grad for parameter in policy.world_model_target.parameters())


def test_pi_of_z_starts_as_the_same_for_all_states() -> None:
    space = make_latent_space("categorical", DIM)
    policy = RPGPolicy(OBS, ACT, lambda _: 1e-3, latent_space=space, **SMALL_POLICY)
    params = policy.actor.latent_params(th.randn(3, 8))
    assert params is not None and th.all(params == 0)


class WithBatchNorm(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Box):
        super().__init__(space, features_dim=3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, obs: th.Tensor) -> th.Tensor:
        return self.norm(obs)


def test_predictions_do_not_move_batch_normalisation() -> None:
    policy = make_policy(features_extractor_class=WithBatchNorm)
    policy.set_training_mode(True)
    assert policy.world_model.training and not policy.world_model_target.training
    before = parameters_of(policy)
    for planning in (None, PlanningConfig()):
        policy.set_training_mode(True)
        policy.predict(observations(), planning=planning)
        policy.set_training_mode(True)
        policy.actor.predict(observations())
    assert changed(before, policy) == set()


def test_net_arch_by_part_and_its_unknown_keys() -> None:
    policy: Any = make_policy(net_arch={"pi": [11], "qf": [12], "model": [13]})
    assert policy.actor.action_head.net[0].out_features == 11
    assert policy.posterior.net is not None and policy.posterior.net[0].out_features == 11
    assert policy.world_model.values.layers[0].weight.shape[-1] == 12
    assert policy.world_model.decoder[0].out_features == 13 and policy.world_model.encoder.net[0].out_features == 13
    with pytest.raises(ValueError, match=r"`net_arch` has unknown keys \['vf'\]; known: pi .*qf .*model"):
        make_policy(net_arch={"pi": [11], "vf": [12]})


def test_optimizer_class_and_arguments() -> None:
    assert make_policy().world_model.optimizer.defaults["eps"] == 1e-8
    policy = make_policy(optimizer_class=th.optim.SGD, optimizer_kwargs={"momentum": 0.5})
    assert isinstance(policy.actor.optimizer, th.optim.SGD) and policy.actor.optimizer.defaults["momentum"] == 0.5
    assert isinstance(make_policy(optimizer_class=th.optim.SGD).actor.optimizer, th.optim.SGD)


def test_posterior_keeps_torchs_initialisation() -> None:
    layer: Any = make_policy().posterior.net[0]  # type: ignore[index]
    bound = layer.in_features**-0.5
    assert layer.weight.abs().max() <= bound and 0 < layer.bias.abs().max() <= bound


@with_latent
def test_posterior_log_prob_keeps_one_z_for_all_steps(latent: str) -> None:
    policy = make_policy(latent)
    states, actions, z = (
        th.randn(3, 5, 8),
        th.rand(3, 5, 2),
        policy.latent_space.sample(5, _params(policy, 5), 1.0, th.device("cpu")),
    )
    log_probs = policy.posterior.log_prob(states, actions, z)
    assert log_probs.shape == (3, 5)
    for k in range(3):
        outputs = policy.posterior(states[k], actions[k])
        assert th.allclose(policy.latent_space.posterior_log_prob(outputs, z), log_probs[k], atol=1e-5)


@with_latent
def test_posteriors_baseline_depends_on_z_alone_and_leaves_a_blind_posterior_nothing(latent: str) -> None:
    policy = make_policy(latent)
    posterior = policy.posterior
    states, actions = th.randn(3, 5, 8), th.rand(3, 5, 2)
    z = policy.latent_space.sample(5, _params(policy, 5), 1.0, th.device("cpu"))
    taken_off = posterior.reward(states, actions, z, baseline=False) - posterior.reward(states, actions, z, baseline=True)
    assert th.allclose(taken_off, taken_off[0].expand(3, -1), atol=1e-4)
    if policy.latent_space.policy_dim > 0 and latent != "mixed":
        assert (taken_off == 0).all()
    elif latent != "mixed" and posterior.net is not None:
        for parameter in posterior.net.parameters():
            nn.init.zeros_(parameter)
        assert th.allclose(posterior.reward(states, actions, z, baseline=True), th.zeros(3, 5), atol=1e-5)


def test_arguments_reach_all_networks() -> None:
    policy = RPGPolicy(
        spaces.Box(0, 255, (3, 36, 36), np.uint8),
        ACT,
        lambda _: 1e-3,
        make_latent_space("gaussian", DIM),
        **{**SMALL_POLICY, "std_scale": 0.7, "activation_fn": nn.Tanh},
        features_extractor_class=NatureCNN,
        normalize_images=False,
    )
    assert float(policy.actor.action_head.log_std_scale) == pytest.approx(math.log(0.7))
    world = policy.world_model
    networks: list[Any] = [policy.posterior.net, world.decoder, world.values, world.reward, world.encoder]
    for network in networks:
        kinds = {type(layer) for layer in network.modules() if not isinstance(layer, nn.Sequential)}
        assert nn.Tanh in kinds
    assert not world.encoder.normalize_images and not policy.world_model_target.encoder.normalize_images
