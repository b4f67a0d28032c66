"""
The part of the policy that acts: pi(z|s1) and pi(a|s,z). It draws z at an episode's start, and carries it as SB3 carries
recurrent states.

``predict(obs, state, episode_start, deterministic)`` returns ``(action, (z,))``; z is redrawn where ``state`` is None or
``episode_start`` is true, and kept elsewhere. With ``deterministic=True`` z is the most probable one, as SB3's other policies
act with the mode of their action distribution.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_rpg.latents import LatentSpace
from sb3_rpg.mixture import make_action_head
from sb3_rpg.networks import DEFAULT_ACTIVATION, DEFAULT_NET_ARCH, init_constant, mlp
from sb3_rpg.world_model import Encoder

LatentState = tuple[np.ndarray, ...] | np.ndarray | None

N_CANDIDATES = 64


def as_latent_array(state: LatentState, n_envs: int, dim: int) -> np.ndarray | None:
    """
    :param state: what a caller gave to ``predict`` as ``state``: None, z, or a tuple that starts with z
    :param n_envs: number of observations in the batch
    :param dim: width of z
    :return: z, (n_envs, dim) float32, or None
    :raises ValueError: if z has another shape
    """
    if state is None:
        return None
    # A copy: the state that predict() returns is never the caller's array
    z = np.array(state[0] if isinstance(state, tuple) else state, dtype=np.float32)
    if z.ndim == 1 and z.shape[0] == dim:
        z = np.tile(z, (n_envs, 1))
    if z.shape != (n_envs, dim):
        raise ValueError(
            f"`state` holds a latent of shape {z.shape}, expected ({n_envs}, {dim}): one z of {dim} numbers for each of the "
            f"{n_envs} observations; pass the state that the last predict() returned, or None to draw anew"
        )
    return z


class LatentActor(BasePolicy):
    """
    pi(z|s1) and pi(a|s,z) on top of the world model's encoder; all that is needed to act.

    :param observation_space: observation space
    :param action_space: action space
    :param latent_space: what z is
    :param encoder: f(o), trained by the world model
    :param net_arch: widths of the hidden layers
    :param activation_fn: activation of the hidden layers
    :param std_scale: factor on the action's standard deviation (Appendix A: 0.4)
    :param normalize_images: see SB3
    :param n_mixture: number of Gaussians of pi(a|s,z)
    """

    latent_temperature: th.Tensor
    candidate_noise: th.Tensor
    latent_optimizer: th.optim.Optimizer

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        latent_space: LatentSpace,
        encoder: Encoder,
        net_arch: Sequence[int] = DEFAULT_NET_ARCH,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
        std_scale: float = 0.4,
        normalize_images: bool = True,
        n_mixture: int = 1,
    ):
        super().__init__(
            observation_space,
            action_space,
            normalize_images=normalize_images,
            squash_output=True,
        )
        self.latent_space = latent_space
        self.encoder = encoder
        self.net_arch, self.activation_fn, self.std_scale = net_arch, activation_fn, std_scale
        self.n_mixture = n_mixture
        input_dim, action_dim = encoder.state_dim + latent_space.dim, get_action_dim(action_space)
        self.action_head = make_action_head(input_dim, action_dim, net_arch, activation_fn, std_scale, n_mixture)
        self.latent_head: nn.Sequential | None = None
        if latent_space.policy_dim > 0:
            self.latent_head = mlp(encoder.state_dim, latent_space.policy_dim, net_arch, activation_fn)
            # Zero outputs: pi(z|s1) starts as the uniform or standard Normal distribution
            init_constant(self.latent_head[-1])
        # alpha_z belongs to pi(z|s1) = softmax(q / alpha_z), so it is saved with the actor
        self.register_buffer("latent_temperature", th.ones(()))
        generator = th.Generator().manual_seed(0)
        self.register_buffer("candidate_noise", th.randn(N_CANDIDATES, latent_space.dim, generator=generator))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "latent_space": self.latent_space,
            "encoder": self.encoder,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "std_scale": self.std_scale,
            "n_mixture": self.n_mixture,
        }

    def latent_params(self, states: th.Tensor) -> th.Tensor | None:
        """
        :param states: s1, (B, S)
        :return: raw outputs of the network of pi(z|s1), (B, policy_dim), or None where the prior is fixed
        """
        return None if self.latent_head is None else self.latent_head(states).float()

    def draw_latent(self, states: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        z of a new episode, without gradient.

        :param states: s1, (B, S)
        :param deterministic: the most probable z instead of a sample. (Not that of the highest V(s1,z): V holds bonus and
            posterior terms, so that it may prefer a rare z to a good one)
        :return: (B, latent_dim)
        """
        space, temperature = self.latent_space, float(self.latent_temperature)
        with th.no_grad():
            params = self.latent_params(states)
            if deterministic:
                return space.mode(len(states), params, states.device)
            return space.sample(len(states), params, temperature, states.device)

    def latent_candidates(self, states: th.Tensor) -> th.Tensor:
        """
        :param states: s1, (B, S)
        :return: the fixed alternatives that a plan compares, (N, B, latent_dim)
        """
        params = self.latent_params(states)
        return self.latent_space.candidates(len(states), params, float(self.latent_temperature), self.candidate_noise)

    def act(self, states: th.Tensor, z: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        Sample pi(a|s,z), reparameterised.

        :param states: (B, S)
        :param z: (B, latent_dim)
        :return: actions in [-1, 1] (B, action_dim), log-probabilities (B,)
        """
        return self.action_head.sample(th.cat([states, z.to(states.dtype)], dim=-1))

    def forward(self, obs: PyTorchObs, z: th.Tensor, deterministic: bool = False) -> th.Tensor:
        """
        :param obs: observations, (B, ...)
        :param z: (B, latent_dim)
        :param deterministic: mode instead of a sample
        :return: actions in [-1, 1], (B, action_dim)
        """
        inputs = th.cat([self.encoder(obs), z], dim=-1)
        return self.action_head.mode(inputs) if deterministic else self.action_head.draw(inputs)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        states = self.encoder(observation)
        inputs = th.cat([states, self.draw_latent(states, deterministic)], dim=-1)
        return self.action_head.mode(inputs) if deterministic else self.action_head.draw(inputs)

    def choose_latents(
        self, states: th.Tensor, z: np.ndarray | None, episode_start: np.ndarray | None, deterministic: bool
    ) -> th.Tensor:
        """
        Keep z within an episode, draw it where one starts.

        :param states: (B, S)
        :param z: latents so far, (B, latent_dim), or None: all start
        :param episode_start: (B,) booleans, or None: none starts
        :param deterministic: see :meth:`draw_latent`
        :return: (B, latent_dim)
        """
        if z is None:
            return self.draw_latent(states, deterministic)
        kept = th.as_tensor(z, device=states.device)
        starts = None if episode_start is None else np.asarray(episode_start, dtype=bool).reshape(-1)
        if starts is None or not starts.any():
            return kept
        mask = th.as_tensor(starts, device=states.device).unsqueeze(-1)
        return th.where(mask, self.draw_latent(states, deterministic), kept)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: LatentState = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """
        :param observation: one observation or a batch
        :param state: z of the running episodes as the last call returned it, or a z to act with, (n_envs, latent_dim)
            or (latent_dim,); None: draw
        :param episode_start: (n_envs,) booleans: draw z anew there
        :param deterministic: reproducible z, and the mode of pi(a|s,z)
        :return: actions in the action space's own scale, and ``(z,)``
        :raises ValueError: if ``state`` has a wrong shape, or ``observation`` is gymnasium's (obs, info) tuple
        """
        obs, vectorized = self._observation_tensor(observation)
        with th.inference_mode():
            states = self.encoder(obs)
            z = as_latent_array(state, len(states), self.latent_space.dim)
            latents = self.choose_latents(states, z, episode_start, deterministic)
            inputs = th.cat([states, latents], dim=-1)
            actions = self.action_head.mode(inputs) if deterministic else self.action_head.draw(inputs)
        return self._finish_prediction(actions, vectorized), (latents.cpu().numpy(),)

    def _observation_tensor(self, observation: np.ndarray | dict[str, np.ndarray]) -> tuple[PyTorchObs, bool]:
        if self.training:
            self.set_training_mode(False)
        if isinstance(observation, tuple):
            raise ValueError(
                "`observation` is a tuple: gymnasium's `obs, info = env.reset()` was passed as it came; pass `obs` alone"
            )
        return self.obs_to_tensor(observation)

    def _finish_prediction(self, actions: th.Tensor, vectorized: bool) -> np.ndarray:
        assert self.action_space.shape is not None
        scaled = actions.cpu().numpy().reshape((-1, *self.action_space.shape))
        unscaled = self.unscale_action(scaled)
        return unscaled if vectorized else unscaled.squeeze(axis=0)
