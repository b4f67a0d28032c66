"""
MLPs and GRU steps as one node of autograd's graph, with bias and activation inside of the matrix product.

On a CPU a hidden layer of 256 units costs 150 us of products for 1500 rows in bfloat16, and as much again for bias, ReLU and
autograd's bookkeeping. oneDNN computes bias and ReLU on the tiles that it has just multiplied; the results are the same
bits. Where its operators are absent or the CPU is too old for them, the activation is unknown here, or numbers are float32,
torch's layers run one by one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch as th
from torch import nn


def _has_onednn() -> bool:
    try:
        operator, takes_bf16 = th.ops.mkldnn._linear_pointwise, th.ops.mkldnn._is_mkldnn_bf16_supported
    except (AttributeError, RuntimeError):
        return False
    return bool(th.backends.mkldnn.is_available()) and operator is not None and bool(takes_bf16())


HAS_ONEDNN = _has_onednn()


class Activation(NamedTuple):
    """What follows a fused layer: within oneDNN's operator, or in place behind it; its gradient from its output, in place."""

    #: oneDNN's name, and its arguments
    name: str
    scalars: list[float]
    #: (gradient, output) -> None
    backward: Callable[[th.Tensor, th.Tensor], None]
    #: output of the product -> output
    behind: Callable[[th.Tensor], th.Tensor] | None = None


def _relu_backward(grad: th.Tensor, out: th.Tensor) -> None:
    th.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)


def _leaky_relu_backward(slope: float, grad: th.Tensor, out: th.Tensor) -> None:
    th.ops.aten.leaky_relu_backward.grad_input(grad, out, slope, True, grad_input=grad)


def _elu(x: th.Tensor) -> th.Tensor:
    # torch's kernels take expm1, which costs twice as much; in float32, exp(x) - 1 is as good where its result is rounded to
    # bfloat16, but for |x| < 1e-5. exp(x) - 1 >= x, so that the larger one is right on both sides of 0
    return th.maximum(x, x.float().clamp_max_(0).exp_().sub_(1).to(x.dtype), out=x)


def _elu_backward(grad: th.Tensor, out: th.Tensor) -> None:
    # 1 above 0, exp(x) = 1 + out below; a quarter of the time of torch's own
    th.addcmul(grad, grad, out.clamp_max(0), out=grad)


def _activation(module: nn.Module) -> Activation | None:
    if isinstance(module, nn.ReLU):
        return Activation("relu", [], _relu_backward)
    if isinstance(module, nn.LeakyReLU) and module.negative_slope > 0:  # only then do outputs tell their inputs' signs
        return Activation("leaky_relu", [module.negative_slope], partial(_leaky_relu_backward, module.negative_slope))
    if isinstance(module, nn.ELU) and module.alpha == 1:
        return Activation("none", [], _elu_backward, _elu)
    return None


_RELU = Activation("relu", [], _relu_backward)


def common_activation(modules: Sequence[nn.Module]) -> Activation | None:
    """
    :param modules: the activations of an MLP
    :return: the one that all of them are; None: they differ, or cannot be fused
    """
    if len({repr(module) for module in modules}) > 1:
        return None
    return _activation(modules[0]) if modules else _RELU


def can_fuse(x: th.Tensor) -> bool:
    """
    :param x: input of a layer
    :return: whether oneDNN's operators take it
    """
    return HAS_ONEDNN and x.dtype == th.bfloat16 and x.device.type == "cpu" and x.numel() > 0


class MLP(nn.Sequential):
    """Linear and activation in turn, ending with a Linear; fused where the activation is ReLU, LeakyReLU or ELU."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        plain = len(layers) % 2 == 1 and all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in layers[::2])
        self._activation = common_activation(layers[1::2]) if plain else None

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: (..., output_dim)
        """
        if self._activation is None or not can_fuse(x):
            return super().forward(x)
        parameters = [parameter for layer in self for parameter in layer.parameters(recurse=False)]
        out: th.Tensor = _apply_mlp(x.reshape(-1, x.shape[-1]), parameters, self._activation)
        return out.view(*x.shape[:-1], out.shape[-1])


def fused_ensemble(
    x: th.Tensor, weights: Sequence[th.Tensor], biases: Sequence[th.Tensor], n_members: int, activation: Activation
) -> th.Tensor:
    """
    :param x: (batch, input_dim), shared by the members, see :func:`can_fuse`
    :param weights: of each layer, (members, input_dim, output_dim)
    :param biases: of each layer, (members, 1, output_dim)
    :param n_members: evaluate only the first so many
    :param activation: of all layers but the last
    :return: (n_members, batch, output_dim)
    """
    outputs = []
    for member in range(n_members):
        pairs = [part for weight, bias in zip(weights, biases, strict=True) for part in (weight[member].t(), bias[member, 0])]
        outputs.append(_apply_mlp(x, pairs, activation))
    return th.stack(outputs)


def _apply_mlp(x: th.Tensor, parameters: Sequence[th.Tensor], activation: Activation) -> th.Tensor:
    if th.is_grad_enabled() and any(part.requires_grad for part in (x, *parameters)):
        return _FusedMLP.apply(activation, x, *parameters)
    # Nothing is kept, so that each layer writes where the one before the last did: into the cache
    for i in range(0, len(parameters) - 2, 2):
        x = _linear_activated(x, parameters[i], parameters[i + 1], activation)
    return _linear(x, parameters[-2], parameters[-1])


def _linear_activated(x: th.Tensor, weight: th.Tensor, bias: th.Tensor, activation: Activation) -> th.Tensor:
    out: th.Tensor = th.ops.mkldnn._linear_pointwise(x, weight, bias, activation.name, activation.scalars, "")
    return out if activation.behind is None else activation.behind(out)


class _FusedMLP(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activation: Activation, x: th.Tensor, *parameters: th.Tensor) -> th.Tensor:
        hidden = [x]
        for i in range(0, len(parameters) - 2, 2):
            hidden.append(_linear_activated(hidden[-1], parameters[i], parameters[i + 1], activation))
        ctx.activation = activation
        ctx.save_for_backward(*hidden, *parameters[::2])
        return _linear(hidden[-1], parameters[-2], parameters[-1])

    @staticmethod
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        n_layers = len(ctx.saved_tensors) // 2
        hidden, weights = ctx.saved_tensors[:n_layers], ctx.saved_tensors[n_layers:]
        needed = ctx.needs_input_grad[1:]
        grads: list[th.Tensor | None] = [None] * (1 + 2 * n_layers)
        for i in reversed(range(n_layers)):
            if needed[1 + 2 * i]:
                grads[1 + 2 * i] = grad.t() @ hidden[i]
            if needed[2 + 2 * i]:
                grads[2 + 2 * i] = grad.sum(0)
            if not any(needed[: 1 + 2 * i]):
                return (None, *grads)
            grad = grad @ weights[i]
            if i > 0:
                # In place: the product has just been written, and nobody else has seen it
                ctx.activation.backward(grad, hidden[i])
        grads[0] = grad
        return (None, *grads)


def fused_linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    :param x: (..., input_dim)
    :param weight: (output_dim, input_dim)
    :param bias: (output_dim,)
    :return: (..., output_dim)
    """
    if not can_fuse(x):
        return nn.functional.linear(x, weight, bias)
    out: th.Tensor = _apply_mlp(x.reshape(-1, x.shape[-1]), (weight, bias), _RELU)
    return out.view(*x.shape[:-1], out.shape[-1])


def gru_steps(gates_input: th.Tensor, hidden: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    Steps of torch's GRU cell whose input products were computed beforehand, as one node of autograd's graph.

    :param gates_input: W_ih x + b_ih of each step, (K, B, 3 hidden), in torch's order reset, update, new
    :param hidden: before the first step, (B, hidden)
    :param weight: W_hh, (3 hidden, hidden)
    :param bias: b_hh, (3 hidden,)
    :return: after each step, (K, B, hidden)
    """
    hiddens: th.Tensor = _GRUSteps.apply(gates_input, hidden, weight, bias)
    return hiddens


def _tanh(x: th.Tensor) -> th.Tensor:
    # torch's bfloat16 kernel takes four times as long as float32's with both conversions
    return x.float().tanh_().to(x.dtype) if x.dtype == th.bfloat16 and x.device.type == "cpu" else th.tanh(x)


def _linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    # torch's own, for bfloat16 on a CPU, copies the bias into every row first
    if can_fuse(x):
        return th.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class _GRUSteps(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_input: th.Tensor, hidden: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
        width = hidden.shape[-1]
        hiddens = hidden.new_empty(len(gates_input), *hidden.shape)
        before, inner = hidden, []
        for gates, after in zip(gates_input, hiddens, strict=True):
            gates_hidden = _linear(before, weight, bias)
            both = (gates[:, : 2 * width] + gates_hidden[:, : 2 * width]).sigmoid_()
            reset, update = both[:, :width], both[:, width:]
            new_hidden = gates_hidden[:, 2 * width :]
            new = _tanh(th.addcmul(gates[:, 2 * width :], reset, new_hidden))
            before = th.lerp(new, before, update, out=after)
            inner += [both, new, new_hidden]
        ctx.save_for_backward(hidden, weight, hiddens, *inner)
        return hiddens

    @staticmethod
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        first, weight, hiddens, *inner = ctx.saved_tensors
        width = first.shape[-1]
        # d of the input's gates; those of the hidden state's differ in the last third by the factor reset
        grad_input, grad_gates = (grad.new_empty(*grad.shape[:2], 3 * width) for _ in range(2))
        grad_after: th.Tensor | None = None
        for k in reversed(range(len(hiddens))):
            hidden, (both, new, new_hidden) = hiddens[k - 1] if k > 0 else first, inner[3 * k : 3 * k + 3]
            reset, update = both[:, :width], both[:, width:]
            grad_k = grad[k] if grad_after is None else grad_after.add_(grad[k])
            grad_hidden = grad_k * update
            grad_both, grad_new = grad_input[k, :, : 2 * width], grad_input[k, :, 2 * width :]
            th.ops.aten.tanh_backward.grad_input(grad_k - grad_hidden, new, grad_input=grad_new)
            th.mul(grad_new, new_hidden, out=grad_both[:, :width])
            th.mul(grad_k, hidden - new, out=grad_both[:, width:])
            th.ops.aten.sigmoid_backward.grad_input(grad_both, both, grad_input=grad_both)
            grad_gates[k, :, : 2 * width] = grad_both
            th.mul(grad_new, reset, out=grad_gates[k, :, 2 * width :])
            if k > 0 or ctx.needs_input_grad[1]:
                grad_after = th.addmm(grad_hidden, grad_gates[k], weight)
        gates = grad_gates.flatten(0, 1)
        grad_weight = None
        if ctx.needs_input_grad[2]:
            grad_weight = gates.t() @ (first if len(hiddens) == 1 else th.cat([first, hiddens[:-1].flatten(0, 1)]))
        grad_bias = gates.sum(0) if ctx.needs_input_grad[3] else None
        return grad_input, grad_after if ctx.needs_input_grad[1] else None, grad_weight, grad_bias
