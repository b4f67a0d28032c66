"""Latent spaces: samples, densities, entropies, posteriors, candidates, and what is said about bad arguments."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from scipy.special import ive
from torch.distributions import Categorical, Independent, Normal
from torch.nn import functional as F

from sb3_rpg.latents import (
    LATENT_SPACES,
    CategoricalLatent,
    GaussianLatent,
    HypersphereLatent,
    LatentSpace,
    MixedLatent,
    NoLatent,
    make_latent_space,
)
from sb3_rpg.latents.hypersphere import von_mises_fisher_log_normalizer

CPU = th.device("cpu")
SPACES: dict[str, LatentSpace] = {name: make_latent_space(name, 4) for name in LATENT_SPACES}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def some_params(space: LatentSpace, n: int) -> th.Tensor | None:
    """Outputs of a network of pi(z|s1): the same for all rows, so that a batch is many draws from one distribution."""
    if not space.policy_dim:
        return None
    return th.linspace(-1.0, 1.5, space.policy_dim).expand(n, -1)


@every_space
@pytest.mark.parametrize("n", [1, 5])
def test_shapes_and_dtypes(space: LatentSpace, n: int) -> None:
    params = some_params(space, n)
    z = space.sample(n, params, 1.0, CPU)
    assert z.shape == (n, space.dim) and z.dtype == th.float32
    for value in (space.log_prob(z, params, 1.0), space.entropy(n, params, 1.0, CPU)):
        assert value.shape == (n,) and value.dtype == th.float32
    outputs = th.randn(3, n, space.posterior_dim)
    assert space.posterior_log_prob(outputs, z.expand(3, n, -1)).shape == (3, n)
    assert space.posterior_accuracy(outputs, z.expand(3, n, -1)).shape == ()


@pytest.mark.parametrize("name", LATENT_SPACES)
def test_made_by_its_name_and_width(name: str) -> None:
    space = make_latent_space(name, 5)
    assert space.name == name
    assert space.dim == {"none": 0, "mixed": 11}.get(name, 5)
    assert make_latent_space(space, 99) is space


def test_samples_are_what_each_space_promises() -> None:
    gaussian = GaussianLatent(3).sample(20000, None, 1.0, CPU)
    assert th.allclose(gaussian.mean(dim=0), th.zeros(3), atol=0.03)
    assert th.allclose(th.cov(gaussian.T), th.eye(3), atol=0.04)

    sphere = HypersphereLatent(5).sample(20000, None, 1.0, CPU)
    assert th.allclose(sphere.norm(dim=1), th.ones(20000), atol=1e-5)
    assert th.allclose(th.cov(sphere.T), th.eye(5) / 5, atol=0.01)

    q = th.tensor([0.0, 1.0, -1.0])
    one_hot = CategoricalLatent(3).sample(20000, q.expand(20000, -1), 0.5, CPU)
    assert th.all((one_hot == 0) | (one_hot == 1)) and th.all(one_hot.sum(dim=1) == 1)
    assert th.allclose(one_hot.mean(dim=0), F.softmax(q / 0.5, dim=0), atol=0.02)

    mixed = MixedLatent(2, n_categories=3).sample(20000, q.expand(20000, -1), 0.5, CPU)
    assert th.allclose(mixed[:, :3].mean(dim=0), F.softmax(q / 0.5, dim=0), atol=0.02)
    assert th.allclose(th.cov(mixed[:, 3:].T), th.eye(2), atol=0.04)


def test_learned_gaussian_starts_as_the_standard_normal_and_keeps_its_std_bounded() -> None:
    space = GaussianLatent(2, learned=True)
    z = space.sample(20000, th.zeros(20000, 4), 1.0, CPU)
    assert th.allclose(z.std(dim=0), th.ones(2), atol=0.03) and th.allclose(z.mean(dim=0), th.zeros(2), atol=0.03)
    zeros = th.zeros(1, 4)
    assert th.allclose(space.log_prob(z, zeros, 1.0), GaussianLatent(2).log_prob(z, None, 1.0), atol=1e-5)
    constant = 1 + math.log(2 * math.pi)
    for raw, log_std in ((-1e6, -3.0), (1e6, 1.0)):
        params = th.tensor([[0.0, 0.0, raw, raw]])
        assert space.entropy(1, params, 1.0, CPU).item() == pytest.approx(2 * log_std + constant, abs=1e-4)


@pytest.mark.parametrize(
    "space", [CategoricalLatent(5), MixedLatent(2, 4), GaussianLatent(3, learned=True)], ids=lambda s: s.name
)
def test_the_range_of_entropies_is_what_extreme_outputs_give(space: LatentSpace) -> None:
    least, most = space.entropy_range
    assert least < space.default_target_entropy < most
    rng = np.random.default_rng(0)
    one_sided = th.zeros(2, space.policy_dim)
    one_sided[0, -1], one_sided[1, 0] = 1e4, 1e4
    outputs = [
        th.zeros(1, space.policy_dim),
        th.full((1, space.policy_dim), 1e4),
        th.full((1, space.policy_dim), -1e4),
        one_sided,
    ]
    outputs.append(th.as_tensor(rng.normal(0, 30, (200, space.policy_dim)), dtype=th.float32))
    params = th.cat(outputs)
    entropies = space.entropy(len(params), params, 1.0, CPU)
    assert entropies.min().item() == pytest.approx(least, abs=1e-4) and entropies.max().item() == pytest.approx(most, abs=1e-4)


def test_learned_gaussian_is_reparameterised() -> None:
    space, params = GaussianLatent(3, learned=True), th.zeros(5, 6, requires_grad=True)
    (gradient,) = th.autograd.grad(space.sample(5, params, 1.0, CPU).square().sum(), params)
    assert th.all(gradient != 0)


@every_space
def test_entropy_is_minus_the_mean_log_prob_of_samples(space: LatentSpace) -> None:
    n, temperature = 20000, 0.7
    params = some_params(space, n)
    z = space.sample(n, params, temperature, CPU)
    log_prob = space.log_prob(z, params, temperature)
    entropy = space.entropy(n, params, temperature, CPU)
    error = 4 * log_prob.std().item() / math.sqrt(n) + 1e-4
    assert -log_prob.mean().item() == pytest.approx(entropy[0].item(), abs=error)


def test_prior_densities_integrate_to_one() -> None:
    # Importance sampling from a wider Normal
    proposal = Independent(Normal(th.zeros(2), 3.0 * th.ones(2)), 1)
    z = proposal.sample((200000,))
    params = th.tensor([[0.5, -1.0, 0.3, -0.5]])
    for log_prob in (
        GaussianLatent(2).log_prob(z, None, 1.0),
        GaussianLatent(2, learned=True).log_prob(z, params, 1.0),
        GaussianLatent(2, posterior_std=0.6).posterior_log_prob(th.tensor([[0.4, -0.2]]), z),
    ):
        assert (log_prob - proposal.log_prob(z)).exp().mean().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_category_probabilities_sum_to_one(temperature: float) -> None:
    space, params = CategoricalLatent(5), th.randn(7, 5)
    log_probs = th.stack([space.log_prob(one_hot.expand(7, -1), params, temperature) for one_hot in th.eye(5)])
    assert th.allclose(log_probs.exp().sum(dim=0), th.ones(7), atol=1e-5)
    assert th.allclose(log_probs.T, th.log_softmax(params / temperature, dim=1), atol=1e-5)
    posterior = th.stack([space.posterior_log_prob(params, one_hot.expand(7, -1)) for one_hot in th.eye(5)])
    assert th.allclose(posterior.exp().sum(dim=0), th.ones(7), atol=1e-5)


def test_without_temperature_the_best_category_is_drawn() -> None:
    space, params = CategoricalLatent(3), th.tensor([[0.1, 0.3, 0.2]]).expand(50, -1)
    z = space.sample(50, params, 0.0, CPU)
    assert th.all(z.argmax(dim=1) == 1)
    assert th.allclose(space.log_prob(z, params, 0.0), th.zeros(50))
    assert th.allclose(space.entropy(50, params, 0.0, CPU), th.zeros(50), atol=1e-5)


def test_gaussian_posterior_is_a_normal_of_fixed_std() -> None:
    z, outputs = th.randn(6, 4), th.randn(6, 4)
    for std in (0.38, 0.4, 2.0):
        expected = Independent(Normal(outputs, std * th.ones(4)), 1).log_prob(z)
        assert th.allclose(GaussianLatent(4, posterior_std=std).posterior_log_prob(outputs, z), expected, atol=1e-4)


@pytest.mark.parametrize("mix", [0.0, 0.2, 0.5])
def test_categorical_posterior_is_mixed_with_the_uniform_distribution(mix: float) -> None:
    outputs, category = th.randn(8, 5), th.arange(8) % 5
    expected = Categorical(probs=(1 - mix) * F.softmax(outputs, dim=-1) + mix / 5).log_prob(category)
    space = CategoricalLatent(5, uniform_mix=mix)
    assert th.allclose(space.posterior_log_prob(outputs, F.one_hot(category, 5).float()), expected, atol=1e-5)


def test_a_wrong_guess_costs_no_more_than_the_uniform_share_allows() -> None:
    outputs = th.tensor([[1000.0, 0.0]])
    wrong = CategoricalLatent(2, uniform_mix=0.2).posterior_log_prob(outputs, th.tensor([[0.0, 1.0]]))
    assert wrong.item() == pytest.approx(math.log(0.2 / 2), abs=1e-5)
    assert th.isfinite(CategoricalLatent(2, uniform_mix=0.0).posterior_log_prob(outputs, th.tensor([[0.0, 1.0]]))).all()


def test_mixed_space_is_the_product_of_its_parts() -> None:
    space, category, gaussian = MixedLatent(2, n_categories=3), CategoricalLatent(3), GaussianLatent(2)
    params = th.randn(5, 3)
    z, outputs = space.sample(5, params, 1.0, CPU), th.randn(5, 5)
    expected = category.log_prob(z[:, :3], params, 1.0) + gaussian.log_prob(z[:, 3:], None, 1.0)
    assert th.allclose(space.log_prob(z, params, 1.0), expected, atol=1e-5)
    expected = category.posterior_log_prob(outputs[:, :3], z[:, :3]) + gaussian.posterior_log_prob(outputs[:, 3:], z[:, 3:])
    assert th.allclose(space.posterior_log_prob(outputs, z), expected, atol=1e-5)


def test_posterior_that_knows_nothing_is_the_closed_form_of_no_information() -> None:
    z = th.tensor([[0.3, -1.0], [0.0, 2.0]])
    expected = Normal(0.0, 0.5).log_prob(z).sum(-1)
    assert th.allclose(GaussianLatent(2, posterior_std=0.5).posterior_baseline(z), expected, atol=1e-5)
    mixed = MixedLatent(dim=2, n_categories=3, posterior_std=0.5)
    assert th.allclose(mixed.posterior_baseline(th.cat([th.eye(3)[:2], z], dim=-1)), expected, atol=1e-5)
    sphere = HypersphereLatent(3)
    baseline = sphere.posterior_baseline(sphere.sample(9, None, 1.0, CPU))
    assert th.allclose(baseline, baseline[0].expand(9), atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3, 12, 100])
@pytest.mark.parametrize("concentration", [0.01, 6.25, 50.0, 500.0])
def test_von_mises_fisher_normaliser_equals_scipys(dim: int, concentration: float) -> None:
    order = dim / 2 - 1
    scaled = float(ive(order, concentration))  # exp(-kappa) I_v(kappa)
    expected = order * math.log(concentration) - dim / 2 * math.log(2 * math.pi) - math.log(scaled) - concentration
    assert von_mises_fisher_log_normalizer(dim, concentration) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 6])
def test_sphere_densities_integrate_to_one(dim: int) -> None:
    space = HypersphereLatent(dim, concentration=2.0)
    z = space.sample(100000, None, 1.0, CPU)
    # The mean over uniform points of density / uniform density
    ratio = (space.posterior_log_prob(th.randn(1, dim), z) - space.log_prob(z, None, 1.0)).exp()
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.03)


def test_area_of_circle_and_sphere() -> None:
    for dim, area in ((2, 2 * math.pi), (3, 4 * math.pi)):
        space = HypersphereLatent(dim)
        z = space.sample(1, None, 1.0, CPU)
        assert space.log_prob(z, None, 1.0).item() == pytest.approx(-math.log(area), rel=1e-6)
        assert space.entropy(1, None, 1.0, CPU).item() == pytest.approx(math.log(area), rel=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "learned_gaussian", "categorical", "mixed", "hypersphere"])
def test_posterior_accuracy_is_1_for_perfect_outputs_0_for_worthless_ones_and_between_else(name: str) -> None:
    space = SPACES[name]
    params = th.zeros(4000, space.policy_dim) if space.policy_dim else None
    z = space.sample(4000, params, 1.0, CPU)
    assert space.posterior_accuracy(z, z).item() == pytest.approx(1.0, abs=1e-5)
    blind = space.posterior_accuracy(th.randn(4000, space.posterior_dim), z).item()
    chance = {"categorical": 1 / 4, "mixed": 0.5 / 6}.get(name, 0.0)
    assert blind == pytest.approx(chance, abs=0.03)
    noisy = space.posterior_accuracy(z + 0.5 * th.randn_like(z), z).item()
    assert blind < noisy < 1.0


def test_posterior_accuracy_of_a_gaussian_is_the_share_of_explained_variance() -> None:
    z = th.tensor([[0.0], [2.0], [4.0]])  # variance 8/3
    outputs = th.tensor([[1.0], [2.0], [3.0]])  # mean squared error 2/3
    assert GaussianLatent(1).posterior_accuracy(outputs, z).item() == pytest.approx(1 - (2 / 3) / (8 / 3))


@every_space
def test_posterior_accuracy_of_a_single_sample_is_finite(space: LatentSpace) -> None:
    params = some_params(space, 1)
    z = space.sample(1, params, 1.0, CPU)
    assert 0.0 <= space.posterior_accuracy(th.randn(1, space.posterior_dim), z).item() <= 1.0


@every_space
def test_the_mode_is_valid_and_no_sample_more_probable(space: LatentSpace) -> None:
    params = some_params(space, 7)
    mode = space.mode(7, params, CPU)
    assert mode.shape == (7, space.dim) and mode.dtype == th.float32
    assert th.equal(mode, space.mode(7, params, CPU))
    density = space.log_prob(mode, params, 0.7)
    for _ in range(50):
        assert (density >= space.log_prob(space.sample(7, params, 0.7, CPU), params, 0.7) - 1e-5).all()


def test_modes_lie_in_their_spaces() -> None:
    assert th.equal(GaussianLatent(3).mode(2, None, CPU), th.zeros(2, 3))
    assert th.allclose(HypersphereLatent(3).mode(2, None, CPU).norm(dim=-1), th.ones(2))
    q = th.tensor([[0.1, 0.3, 0.2]])
    assert CategoricalLatent(3).mode(1, q, CPU).tolist() == [[0.0, 1.0, 0.0]]
    assert MixedLatent(2, n_categories=3).mode(1, q, CPU).tolist() == [[0.0, 1.0, 0.0, 0.0, 0.0]]


@every_space
def test_candidates_are_the_same_at_every_call_and_valid(space: LatentSpace) -> None:
    noise = th.randn(10, space.dim)
    params = some_params(space, 3)
    first, second = (space.candidates(3, params, 1.0, noise) for _ in range(2))
    assert th.equal(first, second)
    assert first.shape[1:] == (3, space.dim)
    assert space.dim == 0 or len(first.unique(dim=0)) == len(first)
    for z in first:
        assert th.isfinite(space.log_prob(z, params, 1.0)).all()


def test_candidates_cover_categories_and_follow_the_learned_gaussian() -> None:
    categories = CategoricalLatent(4).candidates(2, th.zeros(2, 4), 1.0, th.randn(64, 4))
    assert th.equal(categories[:, 0], th.eye(4)) and th.equal(categories[:, 1], th.eye(4))

    noise = th.randn(10, 5)
    mixed = MixedLatent(2, n_categories=3).candidates(2, th.zeros(2, 3), 1.0, noise)
    assert {int(z.argmax()) for z in mixed[:, 0, :3]} == {0, 1, 2}
    assert th.equal(mixed[:, 0, 3:], noise[:, 3:])
    # Fewer noises than categories: each category still has its turn
    few = MixedLatent(2, n_categories=5).candidates(1, th.zeros(1, 5), 1.0, th.randn(2, 7))
    assert {int(z.argmax()) for z in few[:, 0, :5]} == set(range(5))

    space, params = GaussianLatent(2, learned=True), th.tensor([[1.0, -1.0, -1.0, 0.5]])
    noise = th.randn(20000, 2)
    z = space.candidates(1, params, 1.0, noise)[:, 0]
    mean, std = z.mean(dim=0), z.std(dim=0)
    assert th.allclose(mean, th.tensor([1.0, -1.0]), atol=0.05)
    expected = Independent(Normal(mean, std), 1).log_prob(z).mean()
    assert space.log_prob(z, params, 1.0).mean().item() == pytest.approx(expected.item(), abs=0.02)


def test_sphere_candidates_lie_on_the_sphere() -> None:
    z = HypersphereLatent(3).candidates(2, None, 1.0, th.randn(10, 3))
    assert th.allclose(z.norm(dim=-1), th.ones(10, 2), atol=1e-6)


def test_no_latent_adds_nothing_to_the_reward() -> None:
    space = NoLatent()
    z = space.sample(3, None, 1.0, CPU)
    assert z.shape == (3, 0)
    assert space.posterior_log_prob(th.zeros(2, 3, 0), z.expand(2, 3, 0)).eq(0).all()
    assert space.candidates(3, None, 1.0, th.zeros(64, 0)).shape == (1, 3, 0)


@pytest.mark.parametrize("dim", [0, -1, 2.5, "12", None, True, float("nan"), float("inf")])
def test_bad_width_is_refused_with_the_remedy(dim: Any) -> None:
    for name in ("gaussian", "learned_gaussian", "categorical", "mixed", "hypersphere"):
        with pytest.raises(ValueError, match=r"`latent_dim` must be an integer of at least 1, got .*latent='none'") as error:
            make_latent_space(name, dim)
        assert repr(dim) in str(error.value)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("gaussian", {"posterior_std": 0.0}, r"`posterior_std` must be a positive number, got 0\.0"),
        ("gaussian", {"posterior_std": "0.4"}, r"`posterior_std` must be a positive number, got '0\.4'"),
        ("learned_gaussian", {"posterior_std": math.inf}, r"`posterior_std` must be a positive number, got inf"),
        ("categorical", {"uniform_mix": 1.0}, r"`uniform_mix` must be a number in \[0, 1\), got 1\.0"),
        ("categorical", {"uniform_mix": None}, r"`uniform_mix` must be a number in \[0, 1\), got None"),
        ("mixed", {"uniform_mix": -0.1}, r"`uniform_mix` must be a number in \[0, 1\), got -0\.1"),
        ("mixed", {"n_categories": 0}, r"`n_categories` must be an integer of at least 1, got 0"),
        ("hypersphere", {"concentration": -1.0}, r"`concentration` must be a positive number, got -1\.0"),
        ("gaussian", {"concentration": 2.0}, r"`latent_kwargs`=\{'concentration': 2\.0\} do not fit latent='gaussian'"),
    ],
)
def test_bad_arguments_are_refused_by_name_and_value(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_latent_space(name, 3, **kwargs)


def test_a_sphere_needs_two_dimensions_and_a_name_must_be_known() -> None:
    with pytest.raises(ValueError, match=r"`latent_dim` must be at least 2 on the hypersphere, got 1; use latent='gaussian'"):
        make_latent_space("hypersphere", 1)
    with pytest.raises(ValueError, match=r"`latent` must be one of gaussian, .*none or a LatentSpace, got 'gauss'"):
        make_latent_space("gauss", 3)


def test_a_learned_pi_of_z_has_no_baseline() -> None:
    z = th.tensor([[0.3, -1.0], [0.0, 2.0]])
    assert th.equal(GaussianLatent(2, learned=True).posterior_baseline(z), th.zeros(2))
    assert th.equal(CategoricalLatent(2).posterior_baseline(th.eye(2)), th.zeros(2))
