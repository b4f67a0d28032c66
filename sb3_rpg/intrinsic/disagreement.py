"""Disagreement of an ensemble of forward models: novelty that noise cannot fake."""

from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from sb3_rpg.checks import require_integer
from sb3_rpg.intrinsic.base import Observation
from sb3_rpg.intrinsic.dynamics import DynamicsReward
from sb3_rpg.networks import EnsembleMLP


class Disagreement(DynamicsReward):
    """
    Exploration by disagreement (Pathak et al. 2019, arXiv 1906.04161); Plan2Explore (Sekar et al. 2020) follows it too.

    Each member of an ensemble learns to predict the next observation's features from features and action. The novelty of a
    transition is the variance of the predictions, over the members and meaned over the features. Members that start
    different agree where they have learned from data: on the *mean* of what follows, so that nothing random in the
    environment is rewarded, unlike with a prediction error.

    Members differ by their initialisation alone and learn from the same batches, as in Plan2Explore. They predict the change
    of the features: the variance is the same, but a change is small where the features are large, which leaves bfloat16
    products less to round.

    :param observation_space: Observation space of the stored (unnormalised) observations.
    :param action_space: Action space, Box or Discrete.
    :param n_members: Number of forward models, at least 2 (Pathak et al.: 5).
    :param width: Width of the two hidden layers of each.
    :param kwargs: Arguments of :class:`~sb3_rpg.intrinsic.dynamics.DynamicsReward`.
    :raises ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        n_members: int = 5,
        width: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        require_integer("n_members", n_members, 2, "one model cannot disagree")
        require_integer("width", width, 1)
        input_dim = self.features.dim + self.action_dim
        self.networks = nn.ModuleDict(
            {"ensemble": EnsembleMLP(n_members, input_dim, self.features.dim, (width, width), nn.LeakyReLU)}
        )
        self._make_optimizer()

    def errors(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> th.Tensor:
        """
        :param obs: Observations (B, \\*shape), or a dict of them.
        :param actions: Actions (B, action_dim).
        :param next_obs: Next observations; not used, as only what is predicted counts.
        :return: Variance over the members, meaned over the features, (B,), float32.
        """
        with th.no_grad():
            features = self.features(obs)
        return self._disagreement(self._predict_changes(features, actions))

    def loss(self, obs: Observation, actions: th.Tensor, next_obs: Observation) -> tuple[th.Tensor, th.Tensor]:
        with th.no_grad():
            features = self.features(obs)
            changes = self.features(next_obs) - features  # B x features
        predicted = self._predict_changes(features, actions)
        return 0.5 * (predicted - changes).square().mean(dim=(1, 2)).sum(), self._disagreement(predicted.detach())

    def _predict_changes(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """What each member expects the features to change by, (M, B, features), float32."""
        networks, dtype = self._in_precision(self.networks)
        inputs = th.cat([features, self.action_inputs(actions)], dim=1).to(dtype)
        return networks["ensemble"](inputs).float()

    @staticmethod
    def _disagreement(predictions: th.Tensor) -> th.Tensor:
        return predictions.var(dim=0, correction=0).mean(dim=-1)
