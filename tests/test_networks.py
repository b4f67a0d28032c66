"""MLPs and their ensembles, the tanh-Normal head, freezing and target averaging."""

import math

import pytest
import torch as th
from torch import nn
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from sb3_rpg.networks import (
    DEFAULT_ACTIVATION,
    EnsembleLinear,
    EnsembleMLP,
    TanhNormalHead,
    frozen,
    init_constant,
    mlp,
    polyak_average,
    tanh_normal_log_prob,
)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_mlp_by_default_is_three_linear_layers_256_wide() -> None:
    for network, activation in ((mlp(5, 3), DEFAULT_ACTIVATION), (mlp(5, 3, activation_fn=nn.Tanh), nn.Tanh)):
        assert [type(layer) for layer in network] == [nn.Linear, activation, nn.Linear, activation, nn.Linear]
    assert [(layer.in_features, layer.out_features) for layer in linear_layers(mlp(5, 3))] == [(5, 256), (256, 256), (256, 3)]


def test_mlp_without_hidden_layers_is_one_linear_layer() -> None:
    assert [type(layer) for layer in mlp(4, 2, net_arch=[])] == [nn.Linear]


def test_mlp_is_initialised_orthogonally_with_zero_biases() -> None:
    for layer in linear_layers(mlp(20, 7, [12])):
        gram = layer.weight @ layer.weight.T  # fewer outputs than inputs: rows are orthonormal
        assert th.allclose(gram, th.eye(layer.out_features), atol=1e-5)
        assert th.all(layer.bias == 0)


def test_mlp_can_keep_torchs_initialisation() -> None:
    th.manual_seed(3)
    expected = nn.Linear(6, 4)
    th.manual_seed(3)
    (layer,) = linear_layers(mlp(6, 4, [], orthogonal=False))
    assert th.equal(layer.weight, expected.weight) and th.equal(layer.bias, expected.bias)


def test_init_constant_makes_the_output_constant_and_refuses_other_layers() -> None:
    layer = nn.Linear(3, 2)
    init_constant(layer, bias=-5.0)
    assert th.equal(layer(th.randn(4, 3)), th.full((4, 2), -5.0))
    with pytest.raises(TypeError, match=r"nn\.Linear, got ELU"):
        init_constant(nn.ELU())


def linear_ensembles(ensemble: EnsembleMLP) -> list[EnsembleLinear]:
    return [layer for layer in ensemble.layers if isinstance(layer, EnsembleLinear)]


def member_forward(ensemble: EnsembleMLP, member: int, x: th.Tensor) -> th.Tensor:
    """One member as a plain MLP."""
    for layer in ensemble.layers:
        x = x @ layer.weight[member] + layer.bias[member, 0] if isinstance(layer, EnsembleLinear) else layer(x)
    return x


def test_ensemble_equals_its_members_one_by_one_for_any_leading_shape() -> None:
    ensemble = EnsembleMLP(3, 5, 2, [7, 6])
    for layer in linear_ensembles(ensemble):
        nn.init.normal_(layer.bias)
    for shape in ((5,), (4, 5), (2, 4, 5)):
        x = th.randn(*shape)
        out = ensemble(x)
        assert out.shape == (3, *shape[:-1], 2)
        for member in range(3):
            assert th.allclose(out[member], member_forward(ensemble, member, x), atol=1e-5)


def test_ensemble_evaluates_only_the_first_members_and_gives_only_them_gradients() -> None:
    ensemble = EnsembleMLP(3, 5, 1, [7])
    x = th.randn(4, 5)
    assert th.allclose(ensemble(x, n_members=2), ensemble(x)[:2], atol=1e-6)
    ensemble(x, n_members=1).sum().backward()
    for layer in linear_ensembles(ensemble):
        assert layer.weight.grad is not None
        assert layer.weight.grad[0].abs().sum() > 0
        assert th.all(layer.weight.grad[1:] == 0)


def test_ensemble_members_start_different_and_orthogonal() -> None:
    (layer,) = linear_ensembles(EnsembleMLP(2, 9, 4, []))
    assert not th.allclose(layer.weight[0], layer.weight[1])
    for weight in layer.weight:
        assert th.allclose(weight.T @ weight, th.eye(4), atol=1e-5)


def set_outputs(head: TanhNormalHead, values: list[float]) -> None:
    """Make the head's network constant."""
    last = linear_layers(head)[-1]
    nn.init.zeros_(last.weight)
    with th.no_grad():
        last.bias.copy_(th.tensor(values))


@pytest.mark.parametrize(
    ("log_std", "expected"), [(0.0, 0.4), (1.0, 0.4 * math.e), (100.0, 0.4 * math.e**2), (-3.0, 0.4 / math.e**3)]
)
def test_std_is_0_4_times_exp_of_log_std_clamped_at_2(log_std: float, expected: float) -> None:
    head = TanhNormalHead(3, 1, [4])
    set_outputs(head, [0.1, log_std])
    mean, log_scale = head(th.randn(2, 3))
    assert th.allclose(mean, th.full((2, 1), 0.1))
    assert th.allclose(log_scale.exp(), th.full((2, 1), expected), rtol=1e-5)


def test_std_is_clamped_from_below_at_exp_minus_20() -> None:
    head = TanhNormalHead(3, 1, [4])
    set_outputs(head, [0.0, -50.0])
    assert head(th.randn(1, 3))[1].item() == pytest.approx(-20.0 + math.log(0.4))


def test_samples_have_the_heads_mean_and_std_before_the_squashing() -> None:
    head = TanhNormalHead(3, 2, [4])
    set_outputs(head, [0.3, -0.2, 0.0, -1.0])
    actions, log_probs = head.sample(th.randn(20000, 3))
    before = th.atanh(actions)
    assert th.allclose(before.mean(dim=0), th.tensor([0.3, -0.2]), atol=0.02)
    assert th.allclose(before.std(dim=0), th.tensor([0.4, 0.4 / math.e]), rtol=0.03)
    assert log_probs.shape == (20000,)
    assert th.allclose(head.mode(th.randn(1, 3)), th.tensor([[0.3, -0.2]]).tanh())


def test_log_prob_equals_torchs_transformed_distribution() -> None:
    mean, log_std = th.randn(50, 3, dtype=th.float64), th.randn(50, 3, dtype=th.float64) - 0.5
    noise = th.randn(50, 3, dtype=th.float64)
    gaussian = mean + log_std.exp() * noise
    squash = TanhTransform(cache_size=1)  # remembers u, as atanh(tanh(u)) loses it
    reference = Independent(TransformedDistribution(Normal(mean, log_std.exp()), [squash]), 1)
    log_prob = tanh_normal_log_prob(gaussian, noise, log_std)
    assert log_prob.shape == (50,)
    assert th.allclose(log_prob, reference.log_prob(squash(gaussian)), rtol=1e-9, atol=1e-9)


def test_log_prob_of_sample_is_that_of_the_returned_action() -> None:
    head = TanhNormalHead(3, 2, [8])
    x = th.randn(30, 3)
    mean, log_std = head(x)
    actions, log_probs = head.sample(x)
    reference = Independent(TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()]), 1)
    assert th.allclose(log_probs, reference.log_prob(actions), atol=1e-3)


@pytest.mark.parametrize("u", [-300.0, -30.0, 30.0, 300.0])
def test_log_prob_and_its_gradient_are_finite_and_right_where_the_action_saturates(u: float) -> None:
    gaussian = th.tensor([[u]], requires_grad=True)
    log_prob = tanh_normal_log_prob(gaussian, th.zeros(1, 1), th.zeros(1, 1))
    log_prob.sum().backward()
    # log(1 - tanh(u)^2) tends to 2 log 2 - 2 |u|
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(u)), rel=1e-6)
    assert gaussian.grad is not None
    assert gaussian.grad.item() == pytest.approx(2.0 * math.copysign(1.0, u))


def test_log_prob_gradient_equals_finite_differences() -> None:
    inputs = [(0.7 * th.randn(4, 3, dtype=th.float64)).requires_grad_(True) for _ in range(3)]
    assert th.autograd.gradcheck(tanh_normal_log_prob, inputs)


def test_sample_is_reparameterised() -> None:
    head = TanhNormalHead(3, 2, [4])
    x = th.randn(5, 3, requires_grad=True)
    (gradient,) = th.autograd.grad(head.sample(x)[0].sum(), x)
    assert gradient.abs().sum() > 0


def test_frozen_lets_gradients_through_but_computes_none_for_the_parameters() -> None:
    layer, x = nn.Linear(3, 1), th.randn(2, 3, requires_grad=True)
    with frozen(layer.parameters()):
        loss = layer(x).sum()
    loss.backward()  # also behind the context
    assert layer.weight.grad is None and layer.bias.grad is None
    assert x.grad is not None and th.allclose(x.grad, layer.weight.detach().expand(2, 3))
    assert layer.weight.requires_grad and layer.bias.requires_grad


def test_frozen_restores_after_an_error_and_leaves_what_was_frozen_before() -> None:
    layer = nn.Linear(3, 1)
    layer.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="inside"), frozen(layer.parameters()):
        assert not layer.weight.requires_grad
        raise RuntimeError("inside")
    assert layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize("tau", [0.0, 0.005, 0.3, 1.0])
def test_polyak_average_moves_the_target_by_tau_and_leaves_the_online_tensors(tau: float) -> None:
    online, target = [th.tensor([1.0, 5.0]), th.tensor([[2.0]])], [th.tensor([3.0, 1.0]), th.tensor([[-2.0]])]
    polyak_average(online, target, tau)
    assert th.allclose(target[0], th.tensor([3.0 + tau * (1.0 - 3.0), 1.0 + tau * (5.0 - 1.0)]))
    assert th.allclose(target[1], th.tensor([[-2.0 + tau * 4.0]]))
    assert th.equal(online[0], th.tensor([1.0, 5.0]))


def test_actions_drawn_alone_are_those_that_come_with_their_log_probability() -> None:
    head, x = TanhNormalHead(5, 2, (16,)), th.randn(7, 5)
    th.manual_seed(3)
    expected = head.sample(x)[0]
    th.manual_seed(3)
    assert th.equal(head.draw(x), expected)
