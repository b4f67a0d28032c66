"""SB3's policy class of RPG: owner of all networks and their optimisers, and planner of z in the world model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_rpg.actor import LatentActor, LatentState, as_latent_array
from sb3_rpg.checks import require_integer, require_number
from sb3_rpg.latents import LatentSpace, NoLatent
from sb3_rpg.losses import value_estimate
from sb3_rpg.networks import DEFAULT_ACTIVATION, DEFAULT_NET_ARCH
from sb3_rpg.posterior import Posterior
from sb3_rpg.world_model import Encoder, WorldModel


class PlanningConfig(NamedTuple):
    """
    How z is planned: imagine each candidate's trajectory in the world model, act with the z of the highest V_est.

    This is the jump between distant modes that a single Gaussian policy cannot make (4.3.1 of the paper).
    """

    #: replan after so many steps; 0: only at an episode's start
    every: int = 0
    #: imagined steps
    horizon: int = 3
    #: discount factor
    gamma: float = 0.99
    #: weight of each further step in V_est
    value_weight_decay: float = 0.97
    #: whether terminations have been seen: what lies behind a likely one then counts less
    terminations: bool = False


def _split_net_arch(
    net_arch: Sequence[int] | dict[str, Sequence[int]] | None,
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """
    :param net_arch: widths for all MLPs, or a dict of them: ``pi`` (policy, posterior), ``qf`` (values), ``model``
    :return: widths of policy, of value ensemble, of the world model
    :raises ValueError: for unknown keys, or widths that are no lists of positive integers
    """
    if isinstance(net_arch, dict):
        unknown = set(net_arch) - {"pi", "qf", "model"}
        if unknown:
            raise ValueError(
                f"`net_arch` has unknown keys {sorted(unknown)}; known: pi (policy), qf (values), model (world model)"
            )
        pi, qf, model = (net_arch.get(key, DEFAULT_NET_ARCH) for key in ("pi", "qf", "model"))
    else:
        pi = qf = model = DEFAULT_NET_ARCH if net_arch is None else net_arch
    for widths in (pi, qf, model):
        if not isinstance(widths, Sequence):
            raise ValueError(f"`net_arch` must hold lists of widths, such as [256, 256], got {widths!r}")
        for width in widths:
            require_integer("net_arch", width, 1)
    return pi, qf, model


class RPGPolicy(BasePolicy):
    """
    All networks of RPG: actor, posterior, world model and the world model's target copy.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param latent_space: what z is; given by :class:`~sb3_rpg.RPG`
    :param net_arch: widths of the hidden layers of all MLPs, or a dict of them by ``pi``, ``qf`` and ``model``
    :param activation_fn: activation of all MLPs
    :param state_dim: width of the latent state
    :param hidden_dim: width of the GRU
    :param n_critics: number of value heads
    :param std_scale: factor on the action's standard deviation
    :param n_mixture: number of Gaussians that pi(a|s,z) is a mixture of
    :param features_extractor_class: SB3 features extractor in front of the encoder
    :param features_extractor_kwargs: its arguments
    :param normalize_images: divide images by 255
    :param optimizer_class: optimiser of all networks
    :param optimizer_kwargs: its arguments, without the learning rate; None for Adam: the fused implementation
    :raises ValueError: if a width or a number is out of its range
    """

    actor: LatentActor
    world_model: WorldModel
    world_model_target: WorldModel
    posterior: Posterior

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        latent_space: LatentSpace | None = None,
        net_arch: Sequence[int] | dict[str, Sequence[int]] | None = None,
        activation_fn: type[nn.Module] = DEFAULT_ACTIVATION,
        state_dim: int = 100,
        hidden_dim: int = 256,
        n_critics: int = 2,
        std_scale: float = 0.4,
        n_mixture: int = 1,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        sizes = {"state_dim": state_dim, "hidden_dim": hidden_dim, "n_critics": n_critics}
        for name, size in sizes.items():
            require_integer(name, size, 1)
        require_number("std_scale", std_scale, lambda x: x > 0, "above 0")
        if optimizer_kwargs is None and issubclass(optimizer_class, (th.optim.Adam, th.optim.AdamW)):
            optimizer_kwargs = {"fused": True}
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
        )
        self.latent_space = NoLatent() if latent_space is None else latent_space
        self.arch_kwargs: dict[str, Any] = {
            "net_arch": net_arch,
            "activation_fn": activation_fn,
            "state_dim": state_dim,
            "hidden_dim": hidden_dim,
            "n_critics": n_critics,
            "std_scale": std_scale,
            "n_mixture": n_mixture,
        }
        action_dim = get_action_dim(action_space)
        pi_arch, value_arch, model_arch = _split_net_arch(net_arch)

        def make_world_model() -> WorldModel:
            features_extractor = self.make_features_extractor()
            encoder = Encoder(features_extractor, state_dim, model_arch, activation_fn, normalize_images)
            return WorldModel(
                encoder, action_dim, self.latent_space.dim, hidden_dim, n_critics, model_arch, value_arch, activation_fn
            )

        self.world_model = make_world_model()
        self.world_model_target = make_world_model()
        self.world_model_target.load_state_dict(self.world_model.state_dict())
        self.world_model_target.requires_grad_(False).train(False)
        self.actor = LatentActor(
            observation_space,
            action_space,
            self.latent_space,
            self.world_model.encoder,
            pi_arch,
            activation_fn,
            std_scale,
            normalize_images,
            n_mixture,
        )
        self.posterior = Posterior(state_dim, action_dim, self.latent_space, pi_arch, activation_fn)

        def make_optimizer(parameters: list[nn.Parameter]) -> th.optim.Optimizer:
            return self.optimizer_class(parameters, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

        self.world_model.optimizer = make_optimizer(list(self.world_model.parameters()))
        self.actor.optimizer = make_optimizer(list(self.actor.action_head.parameters()))
        if self.actor.latent_head is not None:
            self.actor.latent_optimizer = make_optimizer(list(self.actor.latent_head.parameters()))
        if self.posterior.net is not None:
            self.posterior.optimizer = make_optimizer(list(self.posterior.parameters()))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            **self.arch_kwargs,
            "latent_space": self.latent_space,
            "lr_schedule": self._dummy_schedule,
            "features_extractor_class": self.features_extractor_class,
            "features_extractor_kwargs": self.features_extractor_kwargs,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    def set_training_mode(self, mode: bool) -> None:
        """
        Training or evaluation mode (batch normalisation, dropout); the target copy stays in evaluation mode.

        :param mode: training mode
        """
        self.actor.set_training_mode(mode)
        self.world_model.train(mode)
        self.posterior.train(mode)
        self.training = mode

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.actor._predict(observation, deterministic)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: LatentState = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        planning: PlanningConfig | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """
        As :meth:`LatentActor.predict`; with ``planning``, z is planned and the state is ``(z, steps since the plan)``.

        :param observation: one observation or a batch
        :param state: what the last call returned, a z to act with, or None
        :param episode_start: (n_envs,) booleans: choose z anew there
        :param deterministic: reproducible z, and the mode of pi(a|s,z)
        :param planning: see :class:`PlanningConfig`; None: z is drawn from pi(z|s1)
        :return: actions in the action space's own scale, and the state
        """
        if planning is None or self.latent_space.dim == 0:
            return self.actor.predict(observation, state, episode_start, deterministic)
        obs, vectorized = self.actor._observation_tensor(observation)
        with th.inference_mode():
            states = self.actor.encoder(obs)
            n_envs = len(states)
            z = as_latent_array(state, n_envs, self.latent_space.dim)
            steps = np.zeros(n_envs, dtype=np.int64)
            if z is not None and isinstance(state, tuple) and len(state) > 1:
                steps = np.asarray(state[1], dtype=np.int64) + 1
            replan = np.full(n_envs, z is None)
            if episode_start is not None:
                replan |= np.asarray(episode_start, dtype=bool).reshape(-1)
            if planning.every > 0:
                replan |= steps >= planning.every
            steps[replan] = 0
            current = None if z is None else th.as_tensor(z, device=states.device)
            if replan.any() or current is None:
                mask = th.as_tensor(replan, device=states.device).unsqueeze(-1)
                best = self.plan_latent(states, planning)
                current = best if current is None else th.where(mask, best, current)
            inputs = th.cat([states, current], dim=-1)
            head = self.actor.action_head
            actions = head.mode(inputs) if deterministic else head.draw(inputs)
        return self.actor._finish_prediction(actions, vectorized), (current.cpu().numpy(), steps)

    def plan_latent(self, states: th.Tensor, planning: PlanningConfig) -> th.Tensor:
        """
        The candidate z of the highest V_est, its trajectory imagined with the modes of pi(a|s,z).

        :param states: (B, S)
        :param planning: what V_est is made of
        :return: (B, latent_dim)
        """
        candidates = self.actor.latent_candidates(states)  # (N, B, dim)
        values = self.imagined_values(states, candidates, planning)
        return candidates[values.argmax(dim=0), th.arange(len(states), device=states.device)]

    def imagined_values(self, states: th.Tensor, latents: th.Tensor, planning: PlanningConfig) -> th.Tensor:
        """
        V_est of several latents for each state, with the modes of pi(a|s,z); the imagined steps without the entropy and
        posterior terms. What reward and value heads have learned of the intrinsic reward, and values of ``beta``, is in it.

        :param states: (B, S)
        :param latents: (N, B, latent_dim)
        :param planning: what V_est is made of
        :return: mean over value heads, (N, B)
        """
        n_latents, batch, _ = latents.shape
        z = latents.reshape(n_latents * batch, -1)
        start = states.expand(n_latents, -1, -1).reshape(n_latents * batch, -1)

        def act(state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            action = self.actor.action_head.mode(th.cat([state, z], dim=-1))
            return action, action.new_zeros(len(action))

        rollout = self.world_model.imagine(start, act, planning.horizon)
        rewards = self.world_model.predict_rewards(rollout)
        values = self.world_model.predict_values(rollout.states, z).transpose(0, 1)
        continues = 1.0 - th.sigmoid(self.world_model.predict_terminations(rollout)) if planning.terminations else None
        nothing = th.zeros_like(rewards)
        estimate = value_estimate(rewards, nothing, values, planning.gamma, planning.value_weight_decay, continues)
        return estimate.mean(dim=0).view(n_latents, batch)


MlpPolicy = RPGPolicy


class CnnPolicy(RPGPolicy):
    """:class:`RPGPolicy` for images: features by SB3's NatureCNN."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = NatureCNN,
        **kwargs: Any,
    ):
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )


class MultiInputPolicy(RPGPolicy):
    """:class:`RPGPolicy` for Dict observations: features by SB3's CombinedExtractor."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        features_extractor_class: type[BaseFeaturesExtractor] = CombinedExtractor,
        **kwargs: Any,
    ):
        super().__init__(
            observation_space, action_space, lr_schedule, features_extractor_class=features_extractor_class, **kwargs
        )
