"""Measures against what they must be in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_rpg.diagnostics import measures
from sb3_rpg.latents import CategoricalLatent, GaussianLatent, HypersphereLatent, MixedLatent, NoLatent


@pytest.mark.parametrize(
    "space",
    [GaussianLatent(5), GaussianLatent(3, posterior_std=0.7), CategoricalLatent(6), MixedLatent(2, 3), HypersphereLatent(4)],
)
def test_the_best_posterior_is_the_one_that_names_z(space: GaussianLatent) -> None:
    params = th.zeros(50, space.policy_dim) if space.policy_dim else None
    z = space.sample(50, params, 1.0, th.device("cpu"))
    outputs = z * 1e4 if isinstance(space, CategoricalLatent) else z.clone()
    if isinstance(space, MixedLatent):
        outputs[:, : space.n_categories] *= 1e4
    best = space.posterior_log_prob(outputs, z)
    assert th.allclose(best, th.full_like(best, space.best_posterior_log_prob), atol=1e-4)
    noisy = space.posterior_log_prob(outputs + 0.3 * th.randn_like(outputs), z)
    assert (noisy <= space.best_posterior_log_prob + 1e-4).all()


def test_without_z_the_best_is_nothing() -> None:
    assert NoLatent().best_posterior_log_prob == 0.0


def test_posterior_bound_is_the_bound_of_the_paper() -> None:
    entropy = CategoricalLatent(4).entropy(3, th.zeros(3, 4), 1.0, th.device("cpu"))
    assert measures.posterior_bound(th.zeros(7), entropy) == pytest.approx(math.log(4))
    assert measures.posterior_bound(th.full((7,), -math.log(4)), entropy) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5])
def test_information_of_categories_that_are_known_is_their_entropy(n: int) -> None:
    space, batch = CategoricalLatent(n, uniform_mix=0.0), 6000
    z = th.eye(n)[th.randint(n, (batch,))]
    for outputs, exact in ((50.0 * z, math.log(n)), (th.randn(1, n).expand(batch, -1), 0.0)):
        unmatched = space.posterior_log_prob(outputs[:300], z.unsqueeze(1))
        found = measures.information(space.posterior_log_prob(outputs, z), unmatched)
        assert found == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("posterior_std", [0.2, 0.4])
def test_information_of_correlated_gaussians_whatever_spread_the_posterior_has(
    correlation: float, posterior_std: float
) -> None:
    # z given the outputs is Normal(rho x, 1 - rho^2): the posterior's fixed std is not that
    space, batch, dim = GaussianLatent(2, posterior_std=posterior_std), 4000, 2
    x = th.randn(batch, dim)
    z = correlation * x + math.sqrt(1 - correlation**2) * th.randn(batch, dim)
    outputs = correlation * x
    unmatched = space.posterior_log_prob(outputs[:400], z[400:].unsqueeze(1))
    exact = -0.5 * dim * math.log(1 - correlation**2)
    found = measures.information(space.posterior_log_prob(outputs, z)[400:], unmatched)
    # tau has steps of 2, and the bound is one of a finite number of draws
    assert 0.85 * exact - 0.02 <= found <= exact + 0.05


def test_spread_over_latents() -> None:
    values = th.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert measures.spread_over_latents(values) == pytest.approx(math.sqrt(0.5))
    assert measures.spread_over_latents(values.unsqueeze(-1).expand(-1, -1, 3)) == pytest.approx(math.sqrt(0.5))
    assert measures.spread_over_latents(th.ones(4, 3)) == 0.0


@given(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=4), st.floats(-1e3, 1e3))
@settings(deadline=None, derandomize=True)
def test_shares_add_up_and_constants_have_none(scales: list[float], constant: float) -> None:
    x = th.linspace(-1, 1, 10)
    terms = {str(i): scale * x + constant for i, scale in enumerate(scales)}
    shares = measures.shares_of_spread({**terms, "constant": th.full((10,), 1e3 * 0.5)})
    assert shares["constant"] < 1e-3 or sum(scales) < 1.0
    if sum(scales) > 1.0:
        assert float(sum(shares.values())) == pytest.approx(1.0, abs=1e-4)
    assert all(share == 0 for share in measures.shares_of_spread({"a": th.zeros(3), "b": th.zeros(3)}).values())


def test_errors_of_the_model_by_step() -> None:
    real = th.randn(2, 500, 4)
    mask = th.ones(2, 500)
    predicted = th.stack([real[0], th.zeros(500, 4)])
    errors = measures.state_errors(predicted, real, mask)
    assert errors[0] == 0.0 and errors[1] == pytest.approx(1.0, abs=0.1)
    mask[1, 100:] = 0.0
    predicted[1, 100:] = 1e6  # behind the episode's end
    assert measures.state_errors(predicted, real, mask)[1] == pytest.approx(1.0, abs=0.2)
    mask[1] = 0.0
    assert measures.state_errors(predicted, real, mask).isnan().tolist() == [False, True]
    assert measures.state_errors(predicted, th.ones(2, 500, 4), th.ones(2, 500)).isnan().all()


def test_bias_of_imagined_returns() -> None:
    real = th.tensor([1.0, 3.0])
    bias, error = measures.return_bias(real + 2.0, real)
    assert (float(bias), float(error)) == (2.0, 2.0)
    bias, error = measures.return_bias(th.tensor([3.0, 1.0]), real)
    assert (float(bias), float(error)) == (0.0, 2.0)
    assert all(value.isnan() for value in measures.return_bias(th.zeros(2), th.full((2,), 0.1)))


def test_discounted_sum() -> None:
    rewards, mask = th.tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]), th.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert measures.discounted_sum(rewards, mask, 0.5).tolist() == [3.0, 1.0]


def test_returns_to_go_over_truncation_termination_and_the_blocks_end() -> None:
    rewards = th.ones(6, 1)
    last = th.tensor([0, 1, 0, 1, 0, 1]).bool().unsqueeze(1)  # truncated, terminated, the block's end
    terminated = th.tensor([0, 0, 0, 1.0, 0, 0]).unsqueeze(1)
    sums, weights = measures.returns_to_go(rewards, terminated, last, 0.5)
    assert sums[:, 0].tolist() == [1.5, 1.0, 1.5, 1.0, 1.5, 1.0]
    assert weights[:, 0].tolist() == [0.25, 0.5, 0.0, 0.0, 0.25, 0.5]


@given(reward=st.floats(-50.0, 50.0), gamma=st.sampled_from([0.9, 0.99]), seed=st.integers(0, 50))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_a_constant_reward_has_the_value_of_its_series_wherever_episodes_are_cut(
    reward: float, gamma: float, seed: int
) -> None:
    last = th.as_tensor(np.random.default_rng(seed).random((40, 2)) < 0.2)
    last[-1] = True
    rewards = th.full((40, 2), reward, dtype=th.float64)
    sums, weights = measures.returns_to_go(rewards, th.zeros_like(rewards), last, gamma)
    assert measures.reached_value(sums, weights) == pytest.approx(reward / (1 - gamma), rel=1e-9, abs=1e-9)


def test_the_value_of_episodes_that_terminate_is_their_mean_return() -> None:
    rewards = th.tensor([[1.0], [5.0], [2.0]])
    ends = th.tensor([[False], [True], [True]])
    sums, weights = measures.returns_to_go(rewards, ends.float(), ends, 0.5)
    assert measures.reached_value(sums, weights) == pytest.approx((3.5 + 5.0 + 2.0) / 3)
    assert measures.reached_value(*measures.returns_to_go(rewards, th.zeros(3, 1), ends, 1.0)).isnan()


def test_relative_bias_is_at_most_one_for_values_not_learned_yet() -> None:
    sums = th.full((10,), -30.0)
    assert measures.relative_bias(th.zeros(10), th.tensor(-300.0), sums) == pytest.approx(1.0)
    assert measures.relative_bias(th.full((10,), 30.0), th.tensor(10.0), sums) == pytest.approx(2.0)


def test_progress() -> None:
    assert math.isnan(measures.progress([1.0] * 11)) and measures.progress([1.0] * 40) == 0.0
    rise = [0.0] * 20 + [5.0] * 20 + [10.0] * 20
    assert measures.progress(rise) == pytest.approx(10.0 / np.std(rise)) and measures.progress(rise[::-1]) < -2.0
