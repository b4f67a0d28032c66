"""
MLPs and GRU steps as one node of autograd's graph, with bias and activation inside of the matrix product.

On a CPU a hidden layer of 256 units costs 150 us of products for 1500 rows in bfloat16, and as much again for bias, ReLU and
autograd's bookkeeping. oneDNN computes bias and ReLU on the tiles that it has just multiplied; the results are the same
bits. Where its operators are absent, or the network is another than Linear and ReLU in turn, nothing changes.
"""

from collections.abc import Sequence
from typing import Any

import torch as th
from torch import nn


def _has_onednn() -> bool:
    try:
        operator = th.ops.mkldnn._linear_pointwise
    except (AttributeError, RuntimeError):
        return False
    return bool(th.backends.mkldnn.is_available()) and operator is not None


HAS_ONEDNN = _has_onednn()


def _is_fast(x: th.Tensor) -> bool:
    return HAS_ONEDNN and x.dtype == th.bfloat16 and x.device.type == "cpu" and x.numel() > 0


def _negative_slope(activations: Sequence[nn.Module]) -> float | None:
    """
    :param activations: of an MLP, in order
    :return: the slope of ReLU (0) or LeakyReLU left of zero if all are alike; None: they are something else
    """
    if all(isinstance(activation, nn.ReLU) for activation in activations):
        return 0.0
    slopes = {activation.negative_slope if isinstance(activation, nn.LeakyReLU) else None for activation in activations}
    return slopes.pop() if len(slopes) == 1 else None


class MLP(nn.Sequential):
    """Linear and activation in turn, ending with a Linear; fused where the activation is ReLU or LeakyReLU."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        plain = len(layers) % 2 == 1 and all(isinstance(layer, nn.Linear) for layer in layers[::2])
        self._slope = _negative_slope(layers[1::2]) if plain else None

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: (..., output_dim)
        """
        if self._slope is None or not _is_fast(x):
            return super().forward(x)
        parameters = [parameter for layer in self for parameter in layer.parameters(recurse=False)]
        out: th.Tensor = _apply_mlp(x.reshape(-1, x.shape[-1]), parameters, self._slope)
        return out.view(*x.shape[:-1], out.shape[-1])


def can_fuse_ensemble(x: th.Tensor, activations: Sequence[nn.Module]) -> bool:
    """
    :param x: input of an ensemble of MLPs
    :param activations: their activations, in order
    :return: whether :func:`fused_ensemble` computes them
    """
    return _is_fast(x) and all(isinstance(activation, nn.ReLU) for activation in activations)


def fused_ensemble(x: th.Tensor, weights: Sequence[th.Tensor], biases: Sequence[th.Tensor], n_members: int) -> th.Tensor:
    """
    :param x: (batch, input_dim), shared by the members, bfloat16, on a CPU
    :param weights: of each layer, (members, input_dim, output_dim); ReLU follows all but the last
    :param biases: of each layer, (members, 1, output_dim)
    :param n_members: evaluate only the first so many
    :return: (n_members, batch, output_dim)
    """
    outputs = []
    for member in range(n_members):
        pairs = [part for weight, bias in zip(weights, biases, strict=True) for part in (weight[member].t(), bias[member, 0])]
        outputs.append(_apply_mlp(x, pairs))
    return th.stack(outputs)


def _apply_mlp(x: th.Tensor, parameters: Sequence[th.Tensor], slope: float = 0.0) -> th.Tensor:
    if th.is_grad_enabled() and any(part.requires_grad for part in (x, *parameters)):
        return _FusedMLP.apply(slope, x, *parameters)
    # Nothing is kept, so that each layer writes where the one before the last did: into the cache
    for i in range(0, len(parameters) - 2, 2):
        x = _linear_activated(x, parameters[i], parameters[i + 1], slope)
    return _linear(x, parameters[-2], parameters[-1])


def _linear_activated(x: th.Tensor, weight: th.Tensor, bias: th.Tensor, slope: float) -> th.Tensor:
    if slope == 0.0:
        return th.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")
    return th.ops.mkldnn._linear_pointwise(x, weight, bias, "leaky_relu", [slope], "")


class _FusedMLP(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, slope: float, x: th.Tensor, *parameters: th.Tensor) -> th.Tensor:
        hidden = [x]
        for i in range(0, len(parameters) - 2, 2):
            hidden.append(_linear_activated(hidden[-1], parameters[i], parameters[i + 1], slope))
        ctx.slope = slope
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
                # In place: the product has just been written, and nobody else has seen it. Outputs have their inputs' signs
                if ctx.slope == 0.0:
                    th.ops.aten.threshold_backward.grad_input(grad, hidden[i], 0, grad_input=grad)
                else:
                    th.ops.aten.leaky_relu_backward.grad_input(grad, hidden[i], ctx.slope, True, grad_input=grad)
        grads[0] = grad
        return (None, *grads)


def fused_linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    :param x: (..., input_dim)
    :param weight: (output_dim, input_dim)
    :param bias: (output_dim,)
    :return: (..., output_dim)
    """
    if not _is_fast(x):
        return nn.functional.linear(x, weight, bias)
    out: th.Tensor = _apply_mlp(x.reshape(-1, x.shape[-1]), (weight, bias))
    return out.view(*x.shape[:-1], out.shape[-1])


def gru_step(gates_input: th.Tensor, hidden: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    """
    One step of torch's GRU cell whose input product was computed beforehand, as one node of autograd's graph.

    :param gates_input: W_ih x + b_ih, (B, 3 hidden), in torch's order reset, update, new
    :param hidden: (B, hidden)
    :param weight: W_hh, (3 hidden, hidden)
    :param bias: b_hh, (3 hidden,)
    :return: (B, hidden)
    """
    new_hidden: th.Tensor = _GRUStep.apply(gates_input, hidden, weight, bias)
    return new_hidden


def _tanh(x: th.Tensor) -> th.Tensor:
    # torch's bfloat16 kernel takes four times as long as float32's with both conversions
    return x.float().tanh_().to(x.dtype) if x.dtype == th.bfloat16 and x.device.type == "cpu" else th.tanh(x)


def _linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
    # torch's own, for bfloat16 on a CPU, copies the bias into every row first
    if _is_fast(x):
        return th.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


class _GRUStep(th.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_input: th.Tensor, hidden: th.Tensor, weight: th.Tensor, bias: th.Tensor) -> th.Tensor:
        width = hidden.shape[-1]
        gates_hidden = _linear(hidden, weight, bias)
        both = (gates_input[:, : 2 * width] + gates_hidden[:, : 2 * width]).sigmoid_()
        reset, update = both[:, :width], both[:, width:]
        new_hidden = gates_hidden[:, 2 * width :]
        new = _tanh(th.addcmul(gates_input[:, 2 * width :], reset, new_hidden))
        ctx.save_for_backward(hidden, weight, both, new, new_hidden)
        return th.lerp(new, hidden, update)

    @staticmethod
    def backward(ctx: Any, grad: th.Tensor) -> tuple[th.Tensor | None, ...]:
        hidden, weight, both, new, new_hidden = ctx.saved_tensors
        width = hidden.shape[-1]
        reset, update = both[:, :width], both[:, width:]
        grad_hidden = grad * update
        # d of the input's gates; those of the hidden state's differ in the last third by the factor reset
        grad_input = grad.new_empty(len(grad), 3 * width)
        grad_new = grad_input[:, 2 * width :]
        th.addcmul(grad - grad_hidden, (grad - grad_hidden) * new, new, value=-1, out=grad_new)
        th.mul(grad_new, new_hidden, out=grad_input[:, :width])
        th.mul(grad, hidden - new, out=grad_input[:, width : 2 * width])
        slope = th.addcmul(both, both, both, value=-1)  # sigmoid' = s (1 - s)
        grad_input[:, : 2 * width].mul_(slope)
        grad_gates = grad_input.clone()
        grad_gates[:, 2 * width :].mul_(reset)
        grad_weight = grad_gates.t() @ hidden if ctx.needs_input_grad[2] else None
        grad_bias = grad_gates.sum(0) if ctx.needs_input_grad[3] else None
        if ctx.needs_input_grad[1]:
            grad_hidden = th.addmm(grad_hidden, grad_gates, weight)
        return grad_input, grad_hidden, grad_weight, grad_bias
