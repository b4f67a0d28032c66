"""Latents to look at and to choose from: draw them, rank them, act with one of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th

from sb3_rpg.actor import as_latent_array

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG

Observation = np.ndarray | dict[str, np.ndarray]


def _state(model: "RPG", obs: Observation) -> th.Tensor:
    """The latent state of one observation, (1, S)."""
    tensor, _ = model.policy.actor._observation_tensor(obs)
    states: th.Tensor = model.policy.actor.encoder(tensor)
    if len(states) != 1:
        raise ValueError(f"`obs` holds {len(states)} observations; pass one, an episode's first")
    return states


def sample_latents(model: "RPG", obs: Observation, n: int) -> np.ndarray:
    """
    Draw from pi(z|s1), from the global random stream.

    :param model: a model
    :param obs: an episode's first observation, as the model is given it (normalised, where VecNormalize is used)
    :param n: how many
    :return: (n, latent_dim)
    :raises ValueError: if ``n`` is below 1, or ``obs`` is a batch
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
    with th.inference_mode():
        return model.policy.actor.draw_latent(_state(model, obs).expand(n, -1)).cpu().numpy()


def candidate_latents(model: "RPG", obs: Observation) -> np.ndarray:
    """
    The fixed alternatives that planning chooses among: each category, or 64 draws of a continuous z, the same at every call
    and in every process.

    :param model: a model
    :param obs: an episode's first observation
    :return: (n, latent_dim)
    """
    with th.inference_mode():
        return model.policy.actor.latent_candidates(_state(model, obs))[:, 0].cpu().numpy()


def latent_values(model: "RPG", obs: Observation, latents: np.ndarray, horizon: int = 0) -> np.ndarray:
    """
    What the model expects of each z.

    Values are in the scale that rewards are learned in: extrinsic reward times ``reward_scale``, plus bonus.

    :param model: a model
    :param obs: an episode's first observation
    :param latents: (n, latent_dim)
    :param horizon: imagined steps before the value's estimate (V_est of Eq. 3); 0: V(s1, z) alone
    :return: mean over the value heads, (n,)
    :raises ValueError: if the latents have another shape, or the horizon is negative
    """
    if horizon < 0:
        raise ValueError(f"`horizon` must be at least 0, got {horizon}")
    latents = np.asarray(latents, dtype=np.float32)
    z = as_latent_array(latents, len(np.atleast_2d(latents)), model.latent_space.dim)
    policy = model.policy
    with th.inference_mode():
        states = _state(model, obs)
        candidates = th.as_tensor(z, device=states.device).unsqueeze(1)  # (n, 1, dim)
        if horizon > 0:
            values = policy.imagined_values(states, candidates, model.planning_config(0)._replace(horizon=horizon))
        else:
            values = policy.world_model.predict_values(states.expand(len(candidates), 1, -1), candidates).mean(dim=0)
        return values[:, 0].cpu().numpy()


def best_latent(model: "RPG", obs: Observation, n: int | None = None, horizon: int = 0) -> np.ndarray:
    """
    :param model: a model
    :param obs: an episode's first observation
    :param n: draw so many from pi(z|s1) and take the best; None: take the best of the fixed candidates
    :param horizon: see :func:`latent_values`
    :return: (latent_dim,)
    """
    latents = candidate_latents(model, obs) if n is None else sample_latents(model, obs, n)
    return latents[latent_values(model, obs, latents, horizon).argmax()]


class FixedLatent:
    """
    A model that acts with one z whatever happens; goes where SB3 takes a model, as in ``evaluate_policy(FixedLatent(model,
    z), env)``.

    :param model: a model
    :param latent: z, (latent_dim,)
    :raises ValueError: if z has another shape
    """

    def __init__(self, model: "RPG", latent: np.ndarray):
        latent = np.asarray(latent, dtype=np.float32)
        if latent.shape != (model.latent_space.dim,):
            raise ValueError(f"`latent` has the shape {latent.shape}, expected ({model.latent_space.dim},): one z")
        self.model, self.latent = model, latent
        self.policy = model.policy

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        :param observation: one observation or a batch
        :param state: not used: z is the same for all
        :param episode_start: not used
        :param deterministic: the mode of pi(a|s,z) instead of a sample
        :return: actions, and the state
        """
        return self.model.predict(observation, self.latent, None, deterministic)
