"""Disagreement: what it is, and that it is blind to noise where a prediction error is not."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces

from sb3_rpg.intrinsic import Disagreement
from sb3_rpg.networks import EnsembleLinear
from tests.intrinsic.test_dynamics import make, walk


def predictions(bonus: Disagreement, obs: th.Tensor, actions: th.Tensor) -> th.Tensor:
    """Of each member, computed one by one."""
    ensemble: Any = bonus.networks["ensemble"]
    inputs, members = th.cat([bonus.features(obs), actions], dim=1), []
    for member in range(5):
        x = inputs
        for layer in ensemble.layers:
            x = x @ layer.weight[member] + layer.bias[member, 0] if isinstance(layer, EnsembleLinear) else layer(x)
        members.append(x + bonus.features(obs))
    return th.stack(members)


def test_error_is_the_variance_of_the_predicted_features() -> None:
    bonus = make("disagreement", indices=[0])
    obs, actions, next_obs = walk(16)
    expected = predictions(bonus, obs, actions).var(0, correction=0).mean(1)
    th.testing.assert_close(bonus.errors(obs, actions, next_obs), expected)
    # What came out does not matter, only what was expected
    assert th.equal(bonus.errors(obs, actions, next_obs + 1), bonus.errors(obs, actions, next_obs))


def test_loss_is_each_members_own_squared_error() -> None:
    bonus = make("disagreement")
    obs, actions, next_obs = walk(16)
    loss, _ = bonus.loss(obs, actions, next_obs)
    squares = (predictions(bonus, obs, actions) - bonus.features(next_obs)).square().mean(dim=(1, 2))
    th.testing.assert_close(loss, 0.5 * squares.sum())


def test_members_that_are_alike_agree() -> None:
    bonus = make("disagreement")
    for layer in bonus.networks["ensemble"].layers:
        if isinstance(layer, EnsembleLinear):
            layer.weight.data[:] = layer.weight.data[:1].clone()
    th.testing.assert_close(bonus.errors(*walk(8)), th.zeros(8))


def noisy(n: int, noise: bool, low: float = -1.0, high: float = 1.0) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """The action becomes the next position, in one of two rooms with noise on top; the second number tells the room."""
    position, actions = low + (high - low) * th.rand(n, 1), 2 * th.rand(n, 1) - 1
    room = th.full((n, 1), float(noise))
    following = actions + 0.4 * noise * th.randn(n, 1)
    return th.cat([position, room], dim=1), actions, th.cat([following, room], dim=1)


@pytest.mark.parametrize(("name", "blind"), [("disagreement", True), ("icm", False)])
def test_noise_is_no_novelty_for_disagreement_but_is_for_a_prediction_error(name: str, blind: bool) -> None:
    arguments: dict[str, Any] = {"feature_dim": 16} if name == "icm" else {}
    bonus = make(name, act=spaces.Box(-1, 1, (1,)), width=64, normalize=False, learning_rate=3e-3, **arguments)
    for _ in range(200):
        halves = noisy(64, True), noisy(64, False)
        bonus.update(*(th.cat(parts) for parts in zip(*halves, strict=True)))
    random_room, known_room = (bonus.errors(*noisy(2000, noise)).mean() for noise in (True, False))
    if blind:
        assert random_room < 1.8 * known_room
        assert bonus.errors(*noisy(2000, False, 3.0, 5.0)).mean() > 10 * random_room  # what is new, is
    else:
        assert random_room > 2.2 * known_room
