"""
The latent world model: encoder, GRU dynamics, reward, termination and value ensemble (4.3.1, Appendix A).

It knows tensors only. ``replay`` follows stored actions, ``imagine`` those of a policy; both return the same
:class:`Rollout`, time first. K: steps, B: batch, S: width of the latent state, H: value heads.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_rpg.fused import fused_linear, gru_steps
from sb3_rpg.networks import DEFAULT_ACTIVATION, DEFAULT_NET_ARCH, EnsembleMLP, init_constant, mlp
from sb3_rpg.precision import autocast_context

#: an acting policy: state (B, S) -> action (B, action_dim) in [-1, 1] and its log-probability (B,)
ActFn = Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]


class Rollout(NamedTuple):
    """Steps followed in the latent space."""

    #: s_t, (B, S)
    start: th.Tensor
    #: s_{t+1} .. s_{t+K}, (K, B, S)
    states: th.Tensor
    #: actions taken, (K, B, action_dim)
    actions: th.Tensor
    #: embedded actions, (K, B, hidden)
    embeddings: th.Tensor
    #: log pi(a|s,z) of imagined actions, (K, B); empty when actions were given
    log_probs: th.Tensor

    @property
    def states_before(self) -> th.Tensor:
        """s_t .. s_{t+K-1}, the states that the actions were taken in, (K, B, S)."""
        return th.cat([self.start.unsqueeze(0), self.states[:-1]])


class Encoder(nn.Module):
    """
    s = f(o): SB3's preprocessing and features extractor, then an MLP to the latent state.

    :param features_extractor: SB3 features extractor of the observation space
    :param state_dim: S
    :param net_arch: widths of the MLP's hidden layers
    :param activation_fn: activation of the MLP
    :param normalize_images: divide images by 255, see SB3
    """

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        state_dim: int = 100,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
        normalize_images: bool = True,
    ):
        super().__init__()
        self.features_extractor = features_extractor
        self.net = mlp(features_extractor.features_dim, state_dim, net_arch, activation_fn)
        self.normalize_images = normalize_images
        self.state_dim = state_dim

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations as SB3's buffers return them, (B, ...) or a dict of such
        :return: (B, S)
        """
        weight = next(self.net.parameters())
        preprocessed = preprocess_obs(obs, self.features_extractor._observation_space, self.normalize_images)
        # The extractor may be a user's: it stays float32, with the products that autocast knows to be safe
        with autocast_context(weight.dtype, weight.device):
            features = self.features_extractor(preprocessed)
        return self.net(features.to(weight.dtype))


class WorldModel(nn.Module):
    """
    Everything that is learned from segments of replayed steps (Eq. 4).

    The hidden state starts as an MLP of s_t; each step, a GRU reads the embedded action and a decoder MLP gives s_{t+1}.
    Reward and termination read (s_{t+1}, embedded action), the values (s_{t+1}, z).

    :param encoder: f(o), shared with the actor
    :param action_dim: number of action dimensions
    :param latent_dim: width of z
    :param hidden_dim: width of the GRU and of the action embedding
    :param n_critics: H
    :param net_arch: widths of the hidden layers of the MLPs
    :param value_net_arch: widths of the hidden layers of each value head
    :param activation_fn: activation of every MLP
    """

    optimizer: th.optim.Optimizer

    def __init__(
        self,
        encoder: Encoder,
        action_dim: int,
        latent_dim: int,
        hidden_dim: int = 256,
        n_critics: int = 2,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        value_net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
    ):
        super().__init__()
        state_dim = encoder.state_dim
        self.encoder = encoder
        self.action_embedding = mlp(action_dim, hidden_dim, net_arch, activation_fn)
        self.initial_hidden = mlp(state_dim, hidden_dim, net_arch, activation_fn)
        self.gru = nn.GRUCell(hidden_dim, hidden_dim)
        self.decoder = mlp(hidden_dim, state_dim, net_arch, activation_fn)
        self.reward = mlp(state_dim + hidden_dim, 1, net_arch, activation_fn)
        self.termination = mlp(state_dim + hidden_dim, 1, net_arch, activation_fn)
        self.values = EnsembleMLP(n_critics, state_dim + latent_dim, 1, value_net_arch, activation_fn)
        # Before it has learned otherwise, the model should not expect episodes to end
        init_constant(self.termination[-1], bias=-5.0)

    def _embed(self, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        embeddings = self.action_embedding(actions.to(self.gru.weight_ih.dtype))
        return embeddings, fused_linear(embeddings, self.gru.weight_ih, self.gru.bias_ih)

    def replay(self, start: th.Tensor, actions: th.Tensor) -> Rollout:
        """
        Follow given actions. Only the GRU is sequential; all else is one product over time and batch.

        :param start: s_t, (B, S)
        :param actions: in [-1, 1], (K, B, action_dim)
        :return: the rollout
        """
        embeddings, gates = self._embed(actions)
        states = self.decoder(gru_steps(gates, self.initial_hidden(start), self.gru.weight_hh, self.gru.bias_hh))
        return Rollout(start, states, actions, embeddings, actions.new_empty(0))

    def imagine(self, start: th.Tensor, act: ActFn, horizon: int) -> Rollout:
        """
        Follow a policy.

        :param start: s_t, (B, S)
        :param act: the policy, with its z
        :param horizon: K
        :return: the rollout
        """
        hidden, state = self.initial_hidden(start), start
        states, actions, embeddings, log_probs = [], [], [], []
        for _ in range(horizon):
            action, log_prob = act(state)
            embedding, gates = self._embed(action)
            hidden = gru_steps(gates.unsqueeze(0), hidden, self.gru.weight_hh, self.gru.bias_hh)[0]
            state = self.decoder(hidden)
            states.append(state)
            actions.append(action)
            embeddings.append(embedding)
            log_probs.append(log_prob)
        return Rollout(start, th.stack(states), th.stack(actions), th.stack(embeddings), th.stack(log_probs))

    def predict_rewards(self, rollout: Rollout) -> th.Tensor:
        """
        :return: R(s_{t+1}, a), float32, (K, B)
        """
        return self.reward(th.cat([rollout.states, rollout.embeddings], dim=-1)).squeeze(-1).float()

    def predict_terminations(self, rollout: Rollout) -> th.Tensor:
        """
        :return: logits of the episode terminating at each step, float32, (K, B)
        """
        return self.termination(th.cat([rollout.states, rollout.embeddings], dim=-1)).squeeze(-1).float()

    def predict_values(self, states: th.Tensor, z: th.Tensor, n_heads: int | None = None) -> th.Tensor:
        """
        :param states: (..., S)
        :param z: (..., latent_dim), broadcast against the states
        :param n_heads: evaluate only the first so many
        :return: V(s, z) of each head, float32, (H, ...)
        """
        z = z.to(states.dtype).expand(*states.shape[:-1], z.shape[-1])
        return self.values(th.cat([states, z], dim=-1), n_heads).squeeze(-1).float()
