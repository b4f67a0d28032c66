"""
pi(a|s,z) as a mixture of Gaussians: the policy that the paper compares a latent with (Fig. 8D, "GMM").

How the expectation of V over a mixture is differentiated. Within the component that was drawn, the action is a
reparameterised sample, so that V's own gradient reaches mean and standard deviation as for one Gaussian. A choice has no
such gradient: the weights learn by likelihood ratios,

    d E[V] / d weights = E[ V(a) d log p(a) / d weights ],    p(a) = sum_k w_k N_k(a),

with the components held fixed in p. The density of the mixture instead of the probability of the drawn component
averages over all components that could have drawn the action, which lowers the variance where they overlap. Both
parts together are unbiased, whatever V; a baseline for V makes the second quiet.

The alternatives are worse here. Mixing the actions by a Gumbel-softmax, as the paper's code does, and straight-through
gradients evaluate V between the modes or extend it linearly from one to another, both wrong where it matters, with
several optima. Implicit reparameterisation divides by p(a), whose variance grows without bound as modes separate. Evaluating
all components at each of K imagined steps costs the K-th power of their number.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch as th
from torch import nn

from sb3_rpg.checks import require_integer
from sb3_rpg.networks import (
    DEFAULT_ACTIVATION,
    DEFAULT_NET_ARCH,
    LOG_STD_MAX,
    LOG_STD_MIN,
    TanhNormalHead,
    mlp,
    tanh_normal_log_prob,
)


class MixtureSample(NamedTuple):
    """Actions of a mixture, with what its weights learn from."""

    #: in [-1, 1], (..., action_dim), reparameterised within their component
    actions: th.Tensor
    #: log p(a), (...), without gradient with respect to the weights: its expectation is 0
    log_probs: th.Tensor
    #: the same numbers, (...), with gradient with respect to the weights alone
    choice_log_probs: th.Tensor
    #: entropy of the weights, (...), without gradient
    choice_entropies: th.Tensor


class MixtureHead(nn.Module):
    """
    A mixture of tanh-squashed Gaussians with the interface of :class:`~sb3_rpg.networks.TanhNormalHead`.

    :param input_dim: width of (s, z)
    :param action_dim: number of action dimensions
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation between the layers
    :param std_scale: factor on the standard deviations
    :param n_mixture: number of components
    """

    def __init__(
        self,
        input_dim: int,
        action_dim: int,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
        std_scale: float = 0.4,
        n_mixture: int = 5,
    ):
        super().__init__()
        self.n_mixture, self.action_dim = n_mixture, action_dim
        self.net = mlp(input_dim, n_mixture * (1 + 2 * action_dim), net_arch, activation_fn)
        self.log_std_scale = math.log(std_scale)

    def forward(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param x: (..., input_dim)
        :return: log-weights (..., n_mixture), means and log standard deviations of the components before the squashing,
            each (..., n_mixture, action_dim); all float32
        """
        logits, gaussians = self.net(x).float().split([self.n_mixture, 2 * self.n_mixture * self.action_dim], dim=-1)
        mean, log_std = gaussians.unflatten(-1, (2, self.n_mixture, self.action_dim)).unbind(dim=-3)
        return logits.log_softmax(dim=-1), mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX) + self.log_std_scale

    def sample(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param x: (..., input_dim)
        :return: actions in [-1, 1] (..., action_dim), log-probabilities (...); both reparameterised within the component
            that was drawn, see :meth:`sample_with_choice` for the weights
        """
        return self.sample_with_choice(x)[:2]

    def sample_with_choice(self, x: th.Tensor) -> MixtureSample:
        """
        :param x: (..., input_dim)
        :return: actions, and what mean, standard deviation and weights learn from
        """
        log_weights, mean, log_std = self(x)
        gumbel = -th.empty_like(log_weights).exponential_().log()
        chosen = self._largest(log_weights + gumbel)  # ... x n_mixture x 1
        noise = th.randn_like(mean[..., :1, :])
        gaussian = _pick(mean, chosen) + _pick(log_std, chosen).exp() * noise  # ... x 1 x action_dim
        # Of the component that was drawn, the noise is known better than it can be computed back
        noises = th.where(chosen, noise, (gaussian - mean) / log_std.exp())
        components = tanh_normal_log_prob(gaussian, noises, log_std)  # ... x n_mixture
        return MixtureSample(
            gaussian.squeeze(-2).tanh(),
            (log_weights.detach() + components).logsumexp(dim=-1),
            (log_weights + components.detach()).logsumexp(dim=-1),
            -(log_weights.exp() * log_weights).sum(dim=-1).detach(),
        )

    def draw(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: the actions of :meth:`sample` alone, (..., action_dim)
        """
        return self.sample(x)[0]

    def mode(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: (..., input_dim)
        :return: tanh of the mean of the component of the largest weight, (..., action_dim)
        """
        log_weights, mean, _ = self(x)
        return _pick(mean, self._largest(log_weights)).squeeze(-2).tanh()

    def _largest(self, scores: th.Tensor) -> th.Tensor:
        """A mask of the component of the largest score, (..., n_mixture, 1)."""
        best = scores.argmax(dim=-1)[..., None, None]
        return th.arange(self.n_mixture, device=scores.device).unsqueeze(-1) == best


def _pick(values: th.Tensor, chosen: th.Tensor) -> th.Tensor:
    """The chosen component's row, (..., 1, action_dim); by a mask, as exporters know no gathering for batches of any size."""
    return th.where(chosen, values, 0.0).sum(dim=-2, keepdim=True)


class ChoiceRecorder:
    """
    A mixture policy to imagine with, that notes what its weights learn from.

    :param head: the mixture
    :param z: (B, latent_dim), kept for all imagined steps
    """

    def __init__(self, head: MixtureHead, z: th.Tensor):
        self.head, self.z = head, z
        self._log_probs: list[th.Tensor] = []
        self._entropies: list[th.Tensor] = []

    def __call__(self, states: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param states: (B, S)
        :return: actions in [-1, 1] (B, action_dim), log-probabilities (B,)
        """
        sample = self.head.sample_with_choice(th.cat([states, self.z.to(states.dtype)], dim=-1))
        self._log_probs.append(sample.choice_log_probs)
        self._entropies.append(sample.choice_entropies)
        return sample.actions, sample.log_probs

    @property
    def log_probs(self) -> th.Tensor:
        """log p(a) of all steps so far, with gradient with respect to the weights alone, (K, B)."""
        return th.stack(self._log_probs)

    @property
    def entropy(self) -> th.Tensor:
        """Entropy of the weights, a mean over steps and batch, 0-d."""
        return th.stack(self._entropies).mean()


def make_action_head(
    input_dim: int,
    action_dim: int,
    net_arch: Sequence[int],
    activation_fn: type[nn.Module],
    std_scale: float,
    n_mixture: int = 1,
) -> TanhNormalHead | MixtureHead:
    """
    :param input_dim: width of (s, z)
    :param action_dim: number of action dimensions
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation between the layers
    :param std_scale: factor on the standard deviations
    :param n_mixture: number of Gaussians
    :return: pi(a|s,z); one Gaussian needs no mixture
    :raises ValueError: if ``n_mixture`` is no positive integer
    """
    require_integer("n_mixture", n_mixture, 1, "1 is a single Gaussian")
    if n_mixture == 1:
        return TanhNormalHead(input_dim, action_dim, net_arch, activation_fn, std_scale)
    return MixtureHead(input_dim, action_dim, net_arch, activation_fn, std_scale, int(n_mixture))
