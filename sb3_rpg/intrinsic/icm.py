"""The intrinsic curiosity module: error of a forward model in features that an inverse model has shaped."""

from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from sb3_rpg.checks import require_integer, require_number
from sb3_rpg.intrinsic.base import Observation
from sb3_rpg.intrinsic.dynamics import DynamicsReward
from sb3_rpg.networks import mlp


class ICM(DynamicsReward):
    """
    Curiosity by prediction error (Pathak et al. 2017, arXiv 1705.05363).

    An encoder phi makes features of an observation. An inverse model predicts the action from phi(o) and phi(o'), so that phi
    keeps what actions influence; a forward model predicts phi(o') from phi(o) and the action. The novelty of a transition
    is the forward model's error, half the mean over phi's entries of ``(f(phi(o), a) - phi(o'))^2`` (Eq. 6). All three are
    trained together on ``(1 - forward_weight) * L_inverse + forward_weight * L_forward`` (Eq. 7), where ``L_inverse`` is the
    cross-entropy of discrete actions, as in the paper, and half the squared error (that of a unit Normal) of continuous ones.

    Unlike in the paper, phi is normalised to mean 0 and variance 1 over its entries, and the error is their mean instead
    of their sum. Otherwise the forward model's loss outweighs the other at first and is least where phi is constant; from
    there the inverse model does not recover (measured on a walk in the plane: it never learned the actions).

    Where the next observation is random in something that tells the action, the error never falls ("noisy television");
    :class:`~sb3_rpg.intrinsic.disagreement.Disagreement` has no such weakness.

    :param observation_space: Observation space of the stored (unnormalised) observations.
    :param action_space: Action space, Box or Discrete.
    :param width: Width of the hidden layers, of which every network has two.
    :param feature_dim: Width of phi, at least 2.
    :param forward_weight: Share of the forward model in the loss, between 0 and 1 (the paper: 0.2).
    :param kwargs: Arguments of :class:`~sb3_rpg.intrinsic.dynamics.DynamicsReward`.
    :raises ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        width: int = 256,
        feature_dim: int = 128,
        forward_weight: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        require_integer("width", width, 1)
        require_integer("feature_dim", feature_dim, 2, "features are normalised over their entries")
        require_number(
            "forward_weight", forward_weight, lambda x: 0 < x < 1, "between 0 and 1 (the other model gets the rest)"
        )
        self.feature_dim = feature_dim
        self.forward_weight = forward_weight

        def network(input_dim: int, output_dim: int) -> nn.Sequential:
            return mlp(input_dim, output_dim, (width, width), nn.LeakyReLU, orthogonal=False)

        self.networks = nn.ModuleDict(
            {
                "encoder": network(self.features.dim, feature_dim),
                "forward_model": network(feature_dim + self.action_dim, feature_dim),
                "inverse_model": network(2 * feature_dim, self.action_dim),
            }
        )
        self._make_optimizer()

    def errors(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        :param obs: Observations (B, \\*shape), or a dict of them.
        :param actions: Actions (B, action_dim).
        :param next_obs: Next observations, like ``obs``.
        :return: Half the squared error of the forward model, meaned over phi's entries, (B,), float32.
        """
        networks, dtype = self._in_precision(self.networks)
        phi, next_phi = self._encode(networks, dtype, obs, next_obs)
        return self._forward_errors(networks, dtype, phi, actions, next_phi)

    def loss(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> tuple[th.Tensor, th.Tensor]:
        networks, dtype = self._in_precision(self.networks)
        phi, next_phi = self._encode(networks, dtype, obs, next_obs)
        errors = self._forward_errors(networks, dtype, phi, actions, next_phi)
        outputs = self._inverse_outputs(networks, dtype, phi, next_phi)
        targets = self.action_inputs(actions)
        if self.discrete:
            inverse_loss = F.cross_entropy(outputs, targets)
        else:
            inverse_loss = 0.5 * (outputs - targets).square().sum(dim=1).mean()
        return (1.0 - self.forward_weight) * inverse_loss + self.forward_weight * errors.mean(), errors

    @th.no_grad()
    def predict_actions(self, obs: Observation, next_obs: Observation) -> th.Tensor:
        """
        What the inverse model takes the actions for: near to the actions where observations tell them.

        :param obs: Observations (B, \\*shape), or a dict of them.
        :param next_obs: Next observations, like ``obs``.
        :return: Actions (B, action_dim) float32; of a Discrete space, its probabilities of each (B, n).
        """
        networks, dtype = self._in_precision(self.networks)
        outputs = self._inverse_outputs(networks, dtype, *self._encode(networks, dtype, obs, next_obs))
        return outputs.softmax(dim=1) if self.discrete else outputs

    def _encode(
        self, networks: nn.ModuleDict, dtype: th.dtype, obs: Observation, next_obs: Observation
    ) -> tuple[th.Tensor, th.Tensor]:
        """phi of both observations, each (B, feature_dim), float32."""
        with th.no_grad():
            features = th.cat([self.features(obs), self.features(next_obs)]).to(dtype)  # 2B x features
        phi = F.layer_norm(networks["encoder"](features).float(), (self.feature_dim,))
        first, second = phi.chunk(2)
        return first, second

    def _forward_errors(
        self, networks: nn.ModuleDict, dtype: th.dtype, phi: th.Tensor, actions: th.Tensor, next_phi: th.Tensor
    ) -> th.Tensor:
        inputs = th.cat([phi, self.action_inputs(actions)], dim=1).to(dtype)
        predicted = networks["forward_model"](inputs).float()
        return 0.5 * (predicted - next_phi).square().mean(dim=1)

    def _inverse_outputs(self, networks: nn.ModuleDict, dtype: th.dtype, phi: th.Tensor, next_phi: th.Tensor) -> th.Tensor:
        return networks["inverse_model"](th.cat([phi, next_phi], dim=1).to(dtype)).float()
