"""Building blocks of every network: MLPs, ensembles as batched products, the tanh-Normal head, target averaging."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from torch import nn

from sb3_rpg.fused import MLP, can_fuse, common_activation, fused_ensemble

DEFAULT_NET_ARCH = (256, 256)
# The paper has ELU. ReLU costs a tenth of its time on a CPU, and learns narrow peaks of the reward in fewer updates
DEFAULT_ACTIVATION: type[nn.Module] = nn.ReLU
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


def init_orthogonal(module: nn.Module, gain: float = 1.0) -> None:
    """
    Orthogonal weights and zero biases for every linear layer of ``module`` (Appendix A of the paper).

    :param module: the module to initialise in place
    :param gain: factor on the orthogonal matrix
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain=gain)
            nn.init.zeros_(layer.bias)


def init_constant(layer: nn.Module, bias: float = 0.0) -> None:
    """
    A linear layer whose output starts as a constant.

    :param layer: an ``nn.Linear``
    :param bias: the constant
    :raises TypeError: if it is another kind of layer
    """
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"a constant output needs an nn.Linear, got {type(layer).__name__}")
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, bias)


def mlp(
    input_dim: int,
    output_dim: int,
    net_arch: Sequence[int] = DEFAULT_NET_ARCH,
    activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
    orthogonal: bool = True,
) -> nn.Sequential:
    """
    Linear-activation-...-Linear, by default with two hidden layers of 256 (Appendix A of the paper).

    :param input_dim: width of the input
    :param output_dim: width of the output
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation between the layers
    :param orthogonal: initialise orthogonally; else torch's default, as the paper's code does for p_phi and RND
    :return: the network, (..., input_dim) -> (..., output_dim)
    """
    widths = [input_dim, *net_arch]
    layers: list[nn.Module] = []
    for width_in, width_out in itertools.pairwise(widths):
        layers += [nn.Linear(width_in, width_out), activation_fn()]
    layers.append(nn.Linear(widths[-1], output_dim))
    network = MLP(*layers)
    if orthogonal:
        init_orthogonal(network)
    return network


class EnsembleLinear(nn.Module):
    """
    ``n_members`` linear layers as one batched product.

    :param n_members: number of layers
    :param input_dim: width of the input
    :param output_dim: width of the output
    """

    def __init__(self, n_members: int, input_dim: int, output_dim: int):
        super().__init__()
        self.weight = nn.Parameter(th.empty(n_members, input_dim, output_dim))
        self.bias = nn.Parameter(th.zeros(n_members, 1, output_dim))
        for member in self.weight.data:
            nn.init.orthogonal_(member)

    def forward(self, x: th.Tensor, n_members: int | None = None) -> th.Tensor:
        """
        :param x: (batch, input_dim), shared by the members, or (n_members, batch, input_dim)
        :param n_members: evaluate only the first so many
        :return: (n_members, batch, output_dim)
        """
        weight, bias = self.weight[:n_members], self.bias[:n_members]
        if x.dim() == 2:
            x = x.expand(len(weight), -1, -1)
        return th.baddbmm(bias, x, weight)


class EnsembleMLP(nn.Module):
    """
    An ensemble of MLPs of one shape, evaluated together.

    :param n_members: number of MLPs
    :param input_dim: width of the input
    :param output_dim: width of each output
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation between the layers
    """

    def __init__(
        self,
        n_members: int,
        input_dim: int,
        output_dim: int,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
    ):
        super().__init__()
        widths = [input_dim, *net_arch]
        layers: list[nn.Module] = []
        for width_in, width_out in itertools.pairwise(widths):
            layers += [EnsembleLinear(n_members, width_in, width_out), activation_fn()]
        layers.append(EnsembleLinear(n_members, widths[-1], output_dim))
        self.layers = nn.ModuleList(layers)
        self._activation = common_activation(layers[1::2])

    def forward(self, x: th.Tensor, n_members: int | None = None) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :param n_members: evaluate only the first so many
        :return: (n_members, ..., output_dim)
        """
        out = x.reshape(-1, x.shape[-1])
        if self._activation is not None and can_fuse(out):
            linear = [layer for layer in self.layers if isinstance(layer, EnsembleLinear)]
            weights, biases = [layer.weight for layer in linear], [layer.bias for layer in linear]
            n_fused = min(n_members or len(weights[0]), len(weights[0]))
            out = fused_ensemble(out, weights, biases, n_fused, self._activation)
        else:
            for layer in self.layers:
                out = layer(out, n_members) if isinstance(layer, EnsembleLinear) else layer(out)
        return out.view(len(out), *x.shape[:-1], out.shape[-1])


class TanhNormalHead(nn.Module):
    """
    pi(a|s,z): a Normal squashed by tanh, std = ``std_scale`` * exp(log_std) (Appendix A of the paper: 0.4).

    :param input_dim: width of (s, z)
    :param action_dim: number of action dimensions
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation between the layers
    :param std_scale: factor on the standard deviation
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
        std_scale: float = 0.4,
    ):
        super().__init__()
        self.net = mlp(input_dim, 2 * action_dim, net_arch, activation_fn)
        self.log_std_scale = math.log(std_scale)

    def forward(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param x: (..., input_dim)
        :return: mean and log standard deviation before the squashing, float32, each (..., action_dim)
        """
        mean, log_std = self.net(x).float().chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX) + self.log_std_scale

    def sample(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Reparameterised sample and its log-probability.

        :param x: (..., input_dim)
        :return: actions in [-1, 1] (..., action_dim), log-probabilities (...)
        """
        mean, log_std = self(x)
        noise = th.randn_like(mean)
        gaussian = mean + log_std.exp() * noise
        return gaussian.tanh(), tanh_normal_log_prob(gaussian, noise, log_std)

    def draw(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: the actions of :meth:`sample` alone, (..., action_dim)
        """
        mean, log_std = self(x)
        return (mean + log_std.exp() * th.randn_like(mean)).tanh()

    def mode(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: tanh of the mean, (..., action_dim)
        """
        return self(x)[0].tanh()


def tanh_normal_log_prob(gaussian: th.Tensor, noise: th.Tensor, log_std: th.Tensor) -> th.Tensor:
    """
    log-density of a = tanh(u), u ~ N(mean, std), summed over action dimensions.

    The correction log(1 - tanh(u)^2) is written as 2 (log 2 - u - softplus(-2u)), which neither overflows nor needs
    an epsilon where the action saturates.

    :param gaussian: u, (..., action_dim)
    :param noise: (u - mean) / std, (..., action_dim)
    :param log_std: (..., action_dim)
    :return: (...)
    """
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    correction = 2.0 * (math.log(2.0) - gaussian - nn.functional.softplus(-2.0 * gaussian))
    return (normal - correction).sum(dim=-1)


@contextmanager
def frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """
    Within the context gradients flow *through* these parameters' layers but none is computed *for* them.

    The actor's loss is differentiated through the world model; without this, autograd would also compute the model's
    weight gradients, about a third of the backward pass, and leave them for the model's next step to trip over.

    :param parameters: the parameters to freeze
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@th.no_grad()
def polyak_average(online: list[th.Tensor], target: list[th.Tensor], tau: float) -> None:
    """
    target <- (1 - tau) target + tau online, in place, for all tensors in one call.

    :param online: tensors of real numbers to follow
    :param target: tensors to move, of the same shapes
    :param tau: share of the online tensor, in [0, 1]
    """
    th._foreach_lerp_(target, online, tau)
