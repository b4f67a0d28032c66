"""The intrinsic curiosity module: its loss, what its inverse model learns, what it cannot tell from novelty."""

import pytest
import torch as th
from gymnasium import spaces
from torch.nn import functional as F

from sb3_rpg.intrinsic import ICM
from tests.intrinsic.test_dynamics import ACT, OBS, make, walk


def phi(icm: ICM, obs: th.Tensor) -> th.Tensor:
    outputs = icm.networks["encoder"](icm.features(obs))
    return (outputs - outputs.mean(1, keepdim=True)) / (outputs.var(1, correction=0, keepdim=True) + 1e-5).sqrt()


def test_error_is_half_the_squared_error_of_the_forward_model() -> None:
    icm = make("icm")
    obs, actions, next_obs = walk(16)
    predicted = icm.networks["forward_model"](th.cat([phi(icm, obs), actions], dim=1))
    expected = 0.5 * (predicted - phi(icm, next_obs)).pow(2).mean(1)
    th.testing.assert_close(icm.errors(obs, actions, next_obs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("discrete", [False, True])
def test_loss_weighs_both_models_as_in_eq_7(discrete: bool) -> None:
    icm = make("icm", act=spaces.Discrete(3) if discrete else ACT, forward_weight=0.3)
    obs, actions, next_obs = walk(16)
    if discrete:
        actions = th.randint(0, 3, (16, 1))
    outputs = icm.networks["inverse_model"](th.cat([phi(icm, obs), phi(icm, next_obs)], dim=1))
    inverse = F.cross_entropy(outputs, actions[:, 0]) if discrete else 0.5 * (outputs - actions).pow(2).sum(1).mean()
    loss, errors = icm.loss(obs, actions, next_obs)
    th.testing.assert_close(loss, 0.7 * inverse + 0.3 * errors.mean(), rtol=1e-4, atol=1e-5)
    th.testing.assert_close(errors, icm.errors(obs, actions, next_obs))


def test_both_losses_shape_the_encoder() -> None:
    icm = make("icm")
    loss, errors = icm.loss(*walk(16))
    weights = list(icm.networks["encoder"].parameters())
    forward = th.autograd.grad(errors.mean(), weights, retain_graph=True)
    inverse = th.autograd.grad(loss - icm.forward_weight * errors.mean(), weights)
    assert all(gradient.abs().sum() > 0 for gradient in (*forward, *inverse))


def test_inverse_model_learns_continuous_actions_that_the_observations_tell() -> None:
    icm = make("icm", width=64, normalize=False, learning_rate=3e-3)
    for _ in range(150):
        icm.update(*walk(128))
    obs, actions, next_obs = walk(512)
    predicted = icm.predict_actions(obs, next_obs)
    assert predicted.shape == (512, 2) and not predicted.requires_grad
    assert (predicted - actions).square().mean() < 0.1 * actions.var()
    # Not by chance, or by what actions usually are
    assert (icm.predict_actions(obs, obs.flip(0) + 0.3 * actions) - actions).square().mean() > actions.var()


def test_inverse_model_learns_discrete_actions_that_the_observations_tell() -> None:
    moves = th.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5]])
    icm = make("icm", act=spaces.Discrete(3), width=64, normalize=False, learning_rate=3e-3)

    def draw(n: int) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        obs, actions = 2 * th.rand(n, 2) - 1, th.randint(0, 3, (n, 1))
        return obs, actions, obs + moves[actions[:, 0]]

    for _ in range(150):
        icm.update(*draw(128))
    obs, actions, next_obs = draw(512)
    probabilities = icm.predict_actions(obs, next_obs)
    th.testing.assert_close(probabilities.sum(1), th.ones(512))
    assert (probabilities.argmax(1) == actions[:, 0]).float().mean() > 0.95


def test_where_observations_do_not_tell_the_action_the_inverse_model_expects_the_mean() -> None:
    icm = make("icm", obs=OBS, normalize=False, learning_rate=3e-3)
    for _ in range(150):
        obs, actions, _ = walk(128)
        icm.update(obs, actions, obs)
    obs, _, _ = walk(256)
    assert icm.predict_actions(obs, obs).abs().mean() < 0.2
