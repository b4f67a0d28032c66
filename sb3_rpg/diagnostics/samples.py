"""What is measured on: steps as they are stored in the replay buffer, as the environment made them."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_rpg.batches import fill_latents, map_observations
from sb3_rpg.buffers import LatentBufferMixin

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


class Steps(NamedTuple):
    """N stored steps."""

    #: o_t as the policy sees it, (N, ...)
    observations: PyTorchObs
    #: o_{t+1} as the policy sees it; an episode's final observation, not the next one's first, (N, ...)
    next_observations: PyTorchObs
    #: in [-1, 1], (N, action_dim)
    actions: th.Tensor
    #: z, (N, latent_dim)
    latents: th.Tensor
    #: extrinsic reward in the scale that is learned, (N,)
    extrinsic: th.Tensor
    #: intrinsic reward as it is now, zero without one, (N,)
    bonus: th.Tensor
    #: 1 where the episode terminated, (N,)
    terminated: th.Tensor


class Block(NamedTuple):
    """The newest steps of every environment: T rows in the order of time, E environments, flattened to N = T * E steps."""

    steps: Steps
    #: True where the next row is another episode's, or there is none, (T, E)
    last: th.Tensor


def stored_steps(model: "RPG", rows: np.ndarray, envs: np.ndarray) -> Steps:
    """
    :param model: the model
    :param rows: rows of the replay buffer, (N,)
    :param envs: environments, (N,)
    :return: the steps, without goals in hindsight: those did not happen
    """
    buffer, env = model.replay_buffer, model.get_vec_normalize_env()
    obs, next_obs, rewards = LatentBufferMixin._stored_segments(buffer, rows, envs, rows[None])
    next_obs = {key: value[0] for key, value in next_obs.items()} if isinstance(next_obs, dict) else next_obs[0]
    actions = buffer.to_torch(buffer.actions[rows, envs]).float()
    extrinsic = buffer.to_torch(buffer._normalize_reward(rewards[0], env)).float() * model._extrinsic_scale()
    bonus = th.zeros_like(extrinsic)
    if model.bonus is not None:
        # On raw observations, as in training
        bonus = model.bonus.bonus(buffer._observation_tensors(obs, None), actions, buffer._observation_tensors(next_obs, None))
    terminated = buffer.dones[rows, envs] * (1.0 - buffer.timeouts[rows, envs])
    latents = buffer.to_torch(buffer.latents[rows, envs])
    return Steps(
        observations=buffer._observation_tensors(obs, env),
        next_observations=buffer._observation_tensors(next_obs, env),
        actions=actions,
        latents=fill_latents(latents, model.latent_space) if buffer.lacks_latents else latents,
        extrinsic=extrinsic,
        bonus=bonus,
        terminated=buffer.to_torch(terminated.astype(np.float32)),
    )


def newest_block(model: "RPG", n_steps: int) -> Block:
    """
    Consecutive steps that hardly an update has seen yet, which makes them the nearest to held-out data that there is
    without keeping data from training.

    :param model: the model
    :param n_steps: about how many, over all environments
    :return: the block
    """
    buffer = model.replay_buffer
    n_rows = min(buffer.size(), max(1, n_steps // buffer.n_envs))
    rows = (buffer.pos - n_rows + np.arange(n_rows)) % buffer.buffer_size
    starts = buffer.episode_starts[rows]
    last = np.concatenate([starts[1:], np.ones((1, buffer.n_envs), dtype=bool)])
    all_envs = np.tile(np.arange(buffer.n_envs), n_rows)
    return Block(stored_steps(model, np.repeat(rows, buffer.n_envs), all_envs), buffer.to_torch(last))


def recent_steps(model: "RPG", n_steps: int, share: float = 0.25, at_least: int = 2000, at_most: int = 20_000) -> Steps:
    """
    Steps of the policy's latest episodes, of as many different z as possible.

    :param model: the model
    :param n_steps: N, drawn uniformly from NumPy's global generator
    :param share: newest share of the stored steps to draw from
    :param at_least: draw from so many steps if so many are stored
    :param at_most: draw from no more than so many
    :return: the steps
    """
    buffer = model.replay_buffer
    size = buffer.size()
    wanted = min(max(share * size * buffer.n_envs, at_least), at_most)
    n_rows = min(size, max(1, int(wanted) // buffer.n_envs))
    rows = (buffer.pos - 1 - np.random.randint(0, n_rows, size=n_steps)) % buffer.buffer_size
    return stored_steps(model, rows, np.random.randint(0, buffer.n_envs, size=n_steps))


def take(obs: PyTorchObs, index: th.Tensor) -> PyTorchObs:
    """
    :param obs: (N, ...), or a dict of such
    :param index: what to take of the first dimension
    :return: observations of the same structure
    """
    return map_observations(obs, lambda x: x[index])
