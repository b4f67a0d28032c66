"""The mixture of tanh-Gaussians: its density, its samples, and that mean, std and weights get the gradient of E[V]."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from sb3_rpg import RPG
from sb3_rpg.actor import LatentActor
from sb3_rpg.export import to_onnx, to_torchscript
from sb3_rpg.latents import make_latent_space
from sb3_rpg.losses import actor_loss, choice_loss
from sb3_rpg.mixture import ChoiceRecorder, MixtureHead, make_action_head
from sb3_rpg.networks import TanhNormalHead
from sb3_rpg.policies import RPGPolicy
from sb3_rpg.precision import Twin
from sb3_rpg.updates import losses, update_actor
from tests.conftest import SMALL_POLICY, changed, labelled_vec_env, parameters_of, small_rpg
from tests.single_updates import ACT, DIM, OBS, STATE, fp32, make_batch, make_settings, neither


def constant_head(outputs: list[float], n_mixture: int = 2, action_dim: int = 1) -> tuple[MixtureHead, nn.Parameter]:
    """A head whose outputs are a parameter: logits, then means, then log standard deviations, component by component."""
    head = MixtureHead(1, action_dim, [], nn.ReLU, 1.0, n_mixture)
    layer: Any = head.net[-1]
    nn.init.zeros_(layer.weight)
    layer.bias.data.copy_(th.tensor(outputs))
    return head, layer.bias


def reference(head: MixtureHead, x: th.Tensor) -> MixtureSameFamily:
    """The density before the squashing."""
    log_weights, mean, log_std = head(x)
    return MixtureSameFamily(Categorical(logits=log_weights), Independent(Normal(mean, log_std.exp()), 1))


def test_outputs_are_weights_means_and_clamped_stds() -> None:
    head, bias = constant_head([0.0, math.log(3.0), 0.1, -0.2, 0.0, 9.0])
    head.log_std_scale = math.log(0.4)
    log_weights, mean, log_std = head(th.zeros(4, 1))
    assert th.allclose(log_weights.exp(), th.tensor([0.25, 0.75]).expand(4, 2))
    assert th.allclose(mean[..., 0], bias[2:4].expand(4, 2)) and mean.shape == (4, 2, 1)
    assert th.allclose(log_std[0, :, 0].exp(), th.tensor([0.4, 0.4 * math.e**2]))


@pytest.mark.parametrize("shape", [(6,), (3, 6)])
def test_log_prob_is_torchs(shape: tuple[int, ...]) -> None:
    head = MixtureHead(4, 3, [16], nn.ReLU, 0.4, 5)
    x = th.randn(*shape, 4)
    sample = head.sample_with_choice(x)
    assert sample.actions.shape == (*shape, 3) and sample.log_probs.shape == shape
    assert sample.actions.abs().max() <= 1
    gaussian = th.atanh(sample.actions)
    expected = reference(head, x).log_prob(gaussian) - th.log1p(-sample.actions.square()).sum(-1)
    assert th.allclose(sample.log_probs, expected, atol=1e-3)
    assert th.equal(sample.choice_log_probs, sample.log_probs)
    assert th.allclose(sample.choice_entropies, Categorical(logits=head(x)[0]).entropy(), atol=1e-5)


def test_samples_come_from_the_mixture() -> None:
    head, _ = constant_head([0.0, math.log(3.0), -1.0, 1.0, math.log(0.2), math.log(0.1)])
    actions, _ = head.sample(th.zeros(40_000, 1))
    gaussian = th.atanh(actions)
    left = gaussian < 0
    assert left.float().mean().item() == pytest.approx(0.25, abs=0.01)
    for side, mean, std in ((left, -1.0, 0.2), (~left, 1.0, 0.1)):
        assert gaussian[side].mean().item() == pytest.approx(mean, abs=0.01)
        assert gaussian[side].std().item() == pytest.approx(std, rel=0.05)


def test_mode_is_the_mean_of_the_heaviest_component() -> None:
    head, bias = constant_head([0.0, 1.0, 0.5, -0.7, 0.3, 0.9, 0.0, 0.0, 0.0, 0.0], action_dim=2)
    assert th.allclose(head.mode(th.zeros(3, 1)), th.tensor([0.3, 0.9]).tanh().expand(3, 2))
    bias.data[0] = 2.0
    assert th.allclose(head.mode(th.zeros(1)), th.tensor([0.5, -0.7]).tanh())


def test_tiny_standard_deviations_stay_finite() -> None:
    head, bias = constant_head([0.0, 0.0, -30.0, 3.0, -20.0, -20.0])
    sample = head.sample_with_choice(th.zeros(64, 1))
    (gradient,) = th.autograd.grad(sample.log_probs.sum() + sample.choice_log_probs.sum() + sample.actions.sum(), bias)
    assert th.isfinite(sample.log_probs).all() and th.isfinite(gradient).all()


def test_with_components_alike_it_is_a_single_gaussian() -> None:
    single, (head, _) = TanhNormalHead(1, 1, [], nn.ReLU, 1.0), constant_head([0.3, -0.4, 0.2, 0.2, -0.5, -0.5])
    layer: Any = single.net[-1]
    nn.init.zeros_(layer.weight)
    layer.bias.data.copy_(th.tensor([0.2, -0.5]))
    actions, log_probs = head.sample(th.zeros(50, 1))
    mean, log_std = single(th.zeros(50, 1))
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    assert th.allclose(log_probs, squashed.log_prob(actions).sum(-1), atol=1e-3)


# ------------------------------------------------------------------ gradient

OUTPUTS = [0.2, -0.3, -0.8, 0.9, math.log(0.4), math.log(0.6)]
ENT_COEF = 0.3


def peaks(actions: th.Tensor) -> th.Tensor:
    """Two optima, the better one to the left."""
    return (-8 * (actions + 0.6).square()).exp() + 0.4 * (-3 * (actions - 0.7).square()).exp()


def grid_density(outputs: th.Tensor, grid: th.Tensor) -> th.Tensor:
    log_weights, (mean, std) = outputs[:2].log_softmax(0), (outputs[2:4], outputs[4:].exp())
    components = -0.5 * ((grid[:, None] - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
    return (log_weights + components).logsumexp(dim=1)


def exact_gradient(value: Callable[[th.Tensor, th.Tensor], th.Tensor]) -> th.Tensor:
    """Of E[value(a, log p(a))] by quadrature."""
    outputs = th.tensor(OUTPUTS, dtype=th.float64, requires_grad=True)
    grid = th.linspace(-8, 8, 8001, dtype=th.float64)
    log_density = grid_density(outputs, grid)
    log_probs = log_density - 2 * (math.log(2) - grid - nn.functional.softplus(-2 * grid))
    expectation = th.trapezoid(log_density.exp() * value(grid.tanh(), log_probs), grid)
    return th.autograd.grad(expectation, outputs)[0]


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_gradient_of_the_expectation_is_exact_for_means_stds_and_weights(baseline: float) -> None:
    def value(actions: th.Tensor, log_probs: th.Tensor) -> th.Tensor:
        return peaks(actions) - ENT_COEF * log_probs

    expected = exact_gradient(value)
    head, bias = constant_head(OUTPUTS)
    estimates = []
    for _ in range(20):
        choices = ChoiceRecorder(head, th.zeros(20_000, 0))
        actions, log_probs = choices(th.zeros(20_000, 1))
        estimate = value(actions[:, 0], log_probs).unsqueeze(0)
        loss = actor_loss(estimate) + choice_loss(choices.log_probs, estimate, th.full((20_000,), baseline))
        estimates.append(-th.autograd.grad(loss, bias)[0])
    mean, error = th.stack(estimates).mean(0).double(), th.stack(estimates).std(0).double() / 20**0.5
    assert (error < 0.01).all()
    assert ((mean - expected).abs() < 4 * error + 1e-4).all(), (mean, expected, error)
    assert expected.abs().min() > 0.01, "every output matters here"
    # Without the second loss the weights learn nothing at all
    actions, log_probs = head.sample(th.zeros(100, 1))
    (pathwise,) = th.autograd.grad(value(actions[:, 0], log_probs).mean(), bias)
    assert (pathwise[:2] == 0).all() and (pathwise[2:] != 0).all()


def test_gradient_over_two_imagined_steps_is_exact() -> None:
    """The second action is drawn around the first: a gradient must reach the first step through the second's weights."""

    def second(first: th.Tensor) -> th.Tensor:
        return th.stack([first, -first, first - 0.5, first + 0.5, -1.0 + 0 * first, -1.0 + 0 * first], dim=-1)

    def value(a: th.Tensor, b: th.Tensor) -> th.Tensor:
        return peaks(a) + peaks(b) + 0.5 * a * b

    outputs = th.tensor(OUTPUTS, dtype=th.float64, requires_grad=True)
    grid = th.linspace(-5, 5, 401, dtype=th.float64)
    first_density = grid_density(outputs, grid).exp()
    second_densities = th.stack([grid_density(second(a), grid).exp() for a in grid.tanh()])
    inner = th.trapezoid(second_densities * value(grid.tanh()[:, None], grid.tanh()[None]), grid, dim=1)
    expected = th.autograd.grad(th.trapezoid(first_density * inner, grid), outputs)[0]

    head, bias = constant_head(OUTPUTS)
    following = MixtureHead(1, 1, [], nn.ReLU, 1.0, 2)
    following.net = nn.Sequential(Apply(lambda x: second(x[..., 0])))
    estimates = []
    for _ in range(20):
        choices = ChoiceRecorder(head, th.zeros(20_000, 0))
        a, _ = choices(th.zeros(20_000, 1))
        choices.head = following
        b, _ = choices(a)
        estimate = value(a[:, 0], b[:, 0]).unsqueeze(0)
        assert choices.log_probs.shape == (2, 20_000)
        loss = actor_loss(estimate) + choice_loss(choices.log_probs, estimate, th.zeros(20_000))
        estimates.append(-th.autograd.grad(loss, bias)[0])
    mean, error = th.stack(estimates).mean(0).double(), th.stack(estimates).std(0).double() / 20**0.5
    assert ((mean - expected).abs() < 4 * error + 1e-4).all(), (mean, expected, error)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[th.Tensor], th.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.function(x)


def test_the_baseline_quietens_the_weights_gradient() -> None:
    head, bias = constant_head(OUTPUTS)

    def spread(mean_value: float, plain: bool) -> float:
        gradients = []
        for _ in range(200):
            choices = ChoiceRecorder(head, th.zeros(64, 0))
            actions, _ = choices(th.zeros(64, 1))
            estimate = mean_value + peaks(actions[:, 0]).unsqueeze(0)
            loss = choice_loss(choices.log_probs, estimate, th.zeros(64))
            if plain:
                loss = -(estimate[0].detach() * choices.log_probs[0]).mean()
            gradients.append(th.autograd.grad(loss, bias)[0])
        return th.stack(gradients).std(0)[:2].max().item()

    assert spread(10.0, plain=False) == pytest.approx(spread(0.0, plain=False), rel=0.3)
    assert spread(10.0, plain=False) < 0.1 * spread(10.0, plain=True)


def test_a_batch_of_one_has_the_states_value_alone_as_baseline() -> None:
    log_probs = th.tensor([[0.5], [0.25]], requires_grad=True)
    loss = choice_loss(log_probs, th.tensor([[3.0], [9.0]]), th.tensor([1.0]))
    assert loss.item() == pytest.approx(-2.0 * 0.75)


# ------------------------------------------------------------- in the policy


def mixture_policy(latent: str = "gaussian", **kwargs: Any) -> RPGPolicy:
    th.manual_seed(0)
    space = make_latent_space(latent, DIM)
    return RPGPolicy(OBS, ACT, lambda _: 1e-2, latent_space=space, n_mixture=3, **SMALL_POLICY, **kwargs)


@pytest.mark.parametrize("n_mixture", [0, -2, 1.5, True, "3", None])
def test_wrong_numbers_of_components_are_refused(n_mixture: Any) -> None:
    with pytest.raises(ValueError, match=r"`n_mixture` must be an integer of at least 1, got .*; 1 is a single Gaussian"):
        small_rpg(policy_kwargs={**SMALL_POLICY, "n_mixture": n_mixture})


def test_one_component_is_the_single_gaussian() -> None:
    assert type(make_action_head(3, 2, [4], nn.ReLU, 0.4, 1)) is TanhNormalHead
    plain, one = (small_rpg(policy_kwargs={**SMALL_POLICY, **extra}) for extra in ({}, {"n_mixture": 1}))
    assert changed(parameters_of(plain.policy), one.policy) == set()


@pytest.mark.parametrize("precision", [th.float32, th.bfloat16])
@pytest.mark.parametrize("latent", ["none", "gaussian", "learned_gaussian", "categorical"])
def test_an_update_changes_every_output_of_the_head(latent: str, precision: th.dtype) -> None:
    policy = mixture_policy(latent)
    layer: Any = policy.actor.action_head.net[-1]
    before, model = layer.bias.detach().clone(), parameters_of(policy.world_model)
    metrics, log_probs = update_actor(Twin(policy, precision), make_batch(policy), make_settings())
    assert (layer.bias != before).all()
    assert changed(model, policy.world_model) == set()
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert log_probs.shape == (3, 6) and not log_probs.requires_grad
    assert 0.0 < metrics["mixture_entropy"].item() <= math.log(3) + 1e-5


def test_the_weights_learn_which_component_the_value_prefers() -> None:
    policy = mixture_policy("none")
    neither(policy)
    head: Any = policy.actor.action_head
    with th.no_grad():
        head.net[-1].weight.zero_()
        # Narrow, and held there by the step size: only the weights can do something about it
        head.net[-1].bias.copy_(th.tensor([0.0] * 3 + [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0] + [-4.0] * 6))
    preferred = th.tensor([-1.0, 0.0]).tanh()
    policy.world_model.predict_rewards = lambda rollout: (  # type: ignore[method-assign]
        (rollout.actions - preferred).square().sum(-1) < 0.1
    ).float()
    settings = make_settings(horizon=1, ent_coef=0.0, beta=0.0, model_terminations=False)
    for _ in range(60):
        update_actor(fp32(policy), make_batch(policy, batch=32), settings)
    with th.no_grad():
        inputs = policy.world_model.encoder(th.randn(4, 3))
        assert head(inputs)[0].exp()[:, 0].min() > 0.6
        assert th.allclose(head.mode(inputs), preferred, atol=0.1)


@pytest.mark.parametrize("latent", ["none", "gaussian"])
def test_a_model_learns_is_saved_and_loaded(latent: str, tmp_path: Path) -> None:
    kwargs = {**SMALL_POLICY, "n_mixture": 3}
    model = small_rpg(labelled_vec_env(2), latent=latent, policy_kwargs=kwargs, ent_coef=0.1).learn(40)
    assert isinstance(model.actor.action_head, MixtureHead) and model._n_updates > 0
    model.save(tmp_path / "model.zip")
    loaded = RPG.load(tmp_path / "model.zip", env=labelled_vec_env(2), device="cpu")
    assert changed(parameters_of(model.policy), loaded.policy) == set()
    obs = model.observation_space.sample()
    expected, actions = (m.predict(obs, deterministic=True)[0] for m in (model, loaded))
    assert np.array_equal(actions, expected) and model.action_space.contains(actions)
    assert loaded.learn(20, reset_num_timesteps=False).num_timesteps == 60
    model.policy.save(str(tmp_path / "policy.zip"))
    assert changed(parameters_of(model.policy), RPGPolicy.load(str(tmp_path / "policy.zip"), device="cpu")) == set()
    model.actor.save(str(tmp_path / "actor.zip"))
    actor = LatentActor.load(str(tmp_path / "actor.zip"), device="cpu")
    assert np.array_equal(actor.predict(obs, deterministic=True)[0], expected)


def exported() -> tuple[RPG, np.ndarray, np.ndarray, np.ndarray]:
    model = small_rpg(policy_kwargs={**SMALL_POLICY, "n_mixture": 3})
    obs = np.random.default_rng(0).uniform(-3, 8, (5, 3)).astype(np.float32)
    z = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    return model, obs, z, model.predict(obs, state=z, deterministic=True)[0]


def test_torchscript_is_predict() -> None:
    model, obs, z, expected = exported()
    module = to_torchscript(model)
    for n in (5, 1):
        assert np.allclose(module(th.as_tensor(obs[:n]), th.as_tensor(z[:n])).detach().numpy(), expected[:n], atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_is_predict(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, obs, z, expected = exported()
    to_onnx(model, tmp_path / "policy.onnx")
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    for n in (5, 1):
        assert np.allclose(session.run(["action"], {"obs": obs[:n], "z": z[:n]})[0], expected[:n], atol=1e-5)


def test_starts_act_with_the_z_drawn_for_them_and_the_baseline_is_their_value(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = mixture_policy()
    head: Any = policy.actor.action_head
    inputs: list[th.Tensor] = []
    baselines: list[th.Tensor] = []
    sample = head.sample_with_choice

    def watched_sample(x: th.Tensor) -> Any:
        inputs.append(x)
        return sample(x)

    def watched_loss(log_probs: th.Tensor, values: th.Tensor, baseline: th.Tensor) -> th.Tensor:
        baselines.append(baseline)
        return choice_loss(log_probs, values, baseline)

    head.sample_with_choice = watched_sample
    monkeypatch.setattr(losses, "choice_loss", watched_loss)
    batch = make_batch(policy, n_starts=3)
    update_actor(fp32(policy), batch, make_settings())
    states, z = inputs[0].detach().split([STATE, DIM], dim=-1)
    assert th.equal(z[3:], batch.latents[3:]) and (z[:3] != batch.latents[:3]).all()
    assert all(th.equal(x[:, STATE:], z) for x in inputs)
    assert th.allclose(baselines[0], policy.world_model.predict_values(states, z)[0], atol=1e-6)


def test_the_baseline_is_the_rest_of_the_batch() -> None:
    log_probs = th.tensor([[0.5, 2.0]], requires_grad=True)
    loss = choice_loss(log_probs, th.tensor([[4.0, 1.0]]), th.tensor([1.0, 0.0]))
    # Advantages 3 and 1: each less the other's
    assert loss.item() == pytest.approx(-(2.0 * 0.5 - 2.0 * 2.0) / 2)
