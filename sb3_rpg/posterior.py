"""The variational posterior p_phi(z|s,a), which pays trajectories of different z for being told apart."""

from collections.abc import Sequence

import torch as th
from torch import nn

from sb3_rpg.latents import LatentSpace
from sb3_rpg.networks import DEFAULT_ACTIVATION, DEFAULT_NET_ARCH, mlp


class Posterior(nn.Module):
    """
    p_phi(z|s,a), the variational posterior (4.2).

    :param state_dim: S
    :param action_dim: number of action dimensions
    :param latent_space: what z is
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation of the hidden layers
    """

    optimizer: th.optim.Optimizer

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        latent_space: LatentSpace,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
    ):
        super().__init__()
        self.latent_space = latent_space
        self.net: nn.Sequential | None = None
        if latent_space.posterior_dim > 0:
            # torch's default initialisation, as in the paper's code
            self.net = mlp(state_dim + action_dim, latent_space.posterior_dim, net_arch, activation_fn, orthogonal=False)

    def forward(self, states: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param states: (..., S)
        :param actions: (..., action_dim)
        :return: raw outputs, float32, (..., posterior_dim)
        """
        if self.net is None:
            return states.new_zeros(*states.shape[:-1], 0, dtype=th.float32)
        return self.net(th.cat([states, actions.to(states.dtype)], dim=-1)).float()

    def log_prob(self, states: th.Tensor, actions: th.Tensor, z: th.Tensor) -> th.Tensor:
        """
        :param z: (..., latent_dim), broadcast against the states
        :return: log p_phi(z|s,a), (...)
        """
        return self.latent_space.posterior_log_prob(self(states, actions), z.expand(*states.shape[:-1], z.shape[-1]))

    def reward(self, states: th.Tensor, actions: th.Tensor, z: th.Tensor, baseline: bool) -> th.Tensor:
        """
        What beta weighs in the bound (Eq. 2): log p_phi(z|s,a), with ``baseline`` less that of a posterior that knows nothing.

        Then a step that does not tell z is worth nothing, however improbable its z, and a step that tells it is worth living
        for (Eysenbach et al. 2019, DIAYN, Section 3, take log p(z) off for this). As it depends on z alone, the best policy of
        each z is the same where no episode ends early. A learned pi(z|s1) has none.

        :param z: (..., latent_dim), broadcast against the states
        :param baseline: take :meth:`~sb3_rpg.latents.LatentSpace.posterior_baseline` off
        :return: (...)
        """
        log_prob = self.log_prob(states, actions, z)
        return log_prob - self.latent_space.posterior_baseline(z) if baseline else log_prob
