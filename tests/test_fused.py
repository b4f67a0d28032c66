"""Fused MLPs and GRU steps compute what torch's own modules do, forwards and backwards."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch as th
from torch import nn

from sb3_rpg import fused
from sb3_rpg.fused import MLP, fused_linear, gru_steps
from sb3_rpg.networks import EnsembleLinear, EnsembleMLP

DTYPES = [th.float32, th.bfloat16]
#: bfloat16 keeps 8 bits; sums are taken in another order
TOLERANCE = {th.float32: 1e-5, th.bfloat16: 3e-2}


def gradients(out: th.Tensor, inputs: list[th.Tensor]) -> list[th.Tensor]:
    th.manual_seed(5)
    return list(th.autograd.grad(out, inputs, th.randn_like(out)))


def assert_close(ours: list[th.Tensor], theirs: list[th.Tensor], dtype: th.dtype) -> None:
    for own, other in zip(ours, theirs, strict=True):
        scale = other.float().abs().max() + 1e-6
        assert own.shape == other.shape and own.dtype == other.dtype
        assert ((own.float() - other.float()).abs().max() / scale) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU()])
@pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5), (0, 5)])
def test_an_mlp_is_its_layers_in_turn(dtype: th.dtype, activation: nn.Module, shape: tuple[int, ...]) -> None:
    th.manual_seed(0)
    network = MLP(nn.Linear(5, 32), activation, nn.Linear(32, 32), activation, nn.Linear(32, 3)).to(dtype)
    plain = nn.Sequential(*network)
    x = th.randn(shape, dtype=dtype, requires_grad=True)
    out, expected = network(x), plain(x)
    inputs = [x, *network.parameters()]
    assert out.shape == (*shape[:-1], 3)
    with th.no_grad():
        assert th.equal(network(x), out)
    if x.numel():
        assert_close([out], [expected], dtype)
        assert_close(gradients(out, inputs), gradients(expected, inputs), dtype)


def test_elu_is_the_exact_one_rounded_and_its_gradient_torchs() -> None:
    x = th.linspace(-30.0, 30.0, 100_001, dtype=th.float64).bfloat16()
    out = fused._elu(x.clone())
    assert th.equal(out, nn.functional.elu(x.double()).bfloat16())
    grad = th.randn(len(x)).bfloat16()
    expected = th.ops.aten.elu_backward(grad.double(), 1.0, 1.0, 1.0, True, out.double())
    fused._elu_backward(grad, out)
    assert th.allclose(grad.double(), expected, rtol=2**-8, atol=0.0)


def test_another_alpha_of_elu_is_left_to_torch() -> None:
    network = MLP(nn.Linear(5, 32), nn.ELU(alpha=0.5), nn.Linear(32, 3)).bfloat16()
    x = th.randn(7, 5, dtype=th.bfloat16)
    assert th.equal(network(x), nn.Sequential(*network)(x))


@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_frozen_parameters_get_no_gradient_and_let_it_through(frozen: int) -> None:
    th.manual_seed(0)
    network = MLP(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).bfloat16()
    expected = nn.Sequential(*network)
    x = th.randn(7, 5, dtype=th.bfloat16, requires_grad=True)
    for parameter in network[frozen].parameters():
        parameter.requires_grad_(False)
    network(x).sum().backward()
    gradient, x.grad = x.grad, None
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in network.parameters())
    expected(x).sum().backward()
    assert gradient is not None and x.grad is not None
    assert_close([gradient], [x.grad], th.bfloat16)


def test_networks_can_be_pickled() -> None:
    network = MLP(nn.Linear(5, 32), nn.ELU(), nn.Linear(32, 3)).bfloat16()
    x = th.randn(7, 5, dtype=th.bfloat16)
    assert th.equal(pickle.loads(pickle.dumps(network))(x), network(x))


def test_an_input_without_gradient_is_no_obstacle() -> None:
    network = MLP(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)).bfloat16()
    network(th.randn(7, 5, dtype=th.bfloat16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_activations_that_differ_are_not_fused() -> None:
    mixed = MLP(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 3)).bfloat16()
    x = th.randn(7, 5, dtype=th.bfloat16)
    assert th.equal(mixed(x), nn.Sequential(*mixed)(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_members", [None, 1, 2])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.Tanh])
def test_an_ensemble_is_its_members(dtype: th.dtype, n_members: int | None, activation: type[nn.Module]) -> None:
    th.manual_seed(0)
    network = EnsembleMLP(3, 5, 2, (32, 32), activation).to(dtype)
    x = th.randn(7, 5, dtype=dtype, requires_grad=True)
    out = network(x, n_members)
    linear = [layer for layer in network.layers if isinstance(layer, EnsembleLinear)]
    inputs = [x, *network.parameters()]
    expected = []
    for member in range(n_members or 3):
        hidden = x
        for layer in linear:
            hidden = hidden @ layer.weight[member] + layer.bias[member]
            hidden = activation()(hidden) if layer is not linear[-1] else hidden
        expected.append(hidden)
    assert_close([out], [th.stack(expected)], dtype)
    assert_close(gradients(out, inputs), gradients(th.stack(expected), inputs), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_gru_steps_are_those_of_torchs_cell(dtype: th.dtype, n_steps: int) -> None:
    th.manual_seed(0)
    cell = nn.GRUCell(6, 16)
    x, first = th.randn(n_steps, 9, 6, requires_grad=True), th.randn(9, 16, requires_grad=True)
    expected, hidden = [], first
    for step in x:
        hidden = cell(step, hidden)
        expected.append(hidden)
    expected_gradients = gradients(th.stack(expected), [x, first, *cell.parameters()])
    own = cell.to(dtype)
    x, first = x.detach().to(dtype).requires_grad_(), first.detach().to(dtype).requires_grad_()
    gates = fused_linear(x, own.weight_ih, own.bias_ih)
    out = gru_steps(gates, first, own.weight_hh, own.bias_hh)
    assert_close([out.float()], [th.stack(expected)], dtype)
    assert_close([g.float() for g in gradients(out, [x, first, *own.parameters()])], expected_gradients, dtype)


@pytest.mark.parametrize("needed", [(0, 1, 2, 3), (0,), (1,), (2, 3)])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_gru_steps_agree_with_finite_differences(n_steps: int, needed: tuple[int, ...]) -> None:
    th.manual_seed(0)
    shapes = ((n_steps, 4, 9), (4, 3), (9, 3), (9,))
    tensors = [th.randn(*shape, dtype=th.float64, requires_grad=i in needed) for i, shape in enumerate(shapes)]
    assert th.autograd.gradcheck(gru_steps, tensors)


def test_bfloat16_works_on_processors_that_onednn_does_not_take_it_on() -> None:
    code = """
import torch as th
from sb3_rpg import fused
network = fused.MLP(th.nn.Linear(5, 32), th.nn.ReLU(), th.nn.Linear(32, 3)).bfloat16()
network(th.randn(7, 5, dtype=th.bfloat16)).sum().backward()
print(fused.HAS_ONEDNN)
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert output == "False\n"


def test_without_onednns_operators_the_same_is_computed_with_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    network = MLP(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3)).bfloat16()
    x = th.randn(7, 5, dtype=th.bfloat16)
    weight, bias = th.randn(48, 16, dtype=th.bfloat16), th.randn(48, dtype=th.bfloat16)
    gates, hidden = th.randn(2, 7, 48, dtype=th.bfloat16), th.randn(7, 16, dtype=th.bfloat16)
    fast = [network(x), gru_steps(gates, hidden, weight, bias)]
    monkeypatch.setattr(fused, "HAS_ONEDNN", False)
    assert_close([network(x), gru_steps(gates, hidden, weight, bias)], fast, th.bfloat16)
