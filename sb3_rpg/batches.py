"""
What the updates learn from: the buffer's samples made ready.

Pure functions over tensors; K: steps, B: batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_rpg.buffers import SegmentSamples
from sb3_rpg.intrinsic import IntrinsicReward
from sb3_rpg.latents import LatentSpace


class PolicyBatch(NamedTuple):
    """Where the actor's imagined steps start."""

    #: o_t, (B, ...)
    observations: PyTorchObs
    #: stored z, (B, latent_dim)
    latents: th.Tensor
    #: True where o_t is its episode's first, (B,)
    episode_starts: th.Tensor


def map_observations(obs: PyTorchObs, function: Callable[[th.Tensor], th.Tensor]) -> PyTorchObs:
    """
    :param obs: observations, a tensor or a dict of tensors
    :param function: applied to each tensor
    :return: observations of the same structure
    """
    if isinstance(obs, dict):
        return {key: function(value) for key, value in obs.items()}
    return function(obs)


def fill_latents(latents: th.Tensor, space: LatentSpace) -> th.Tensor:
    """
    Draw the z of transitions that were acted without, such as demonstrations: from the fixed prior, or from what a network of
    pi(z|s1) says whose outputs are 0, N(0, 1) and all categories alike. They show what is possible under any z.

    :param latents: z, or NaN where it is not known, (B, latent_dim)
    :param space: what z is
    :return: (B, latent_dim)
    """
    unknown = latents.isnan().any(dim=1)
    n = int(unknown.sum())
    params = latents.new_zeros(n, space.policy_dim) if space.policy_dim > 0 else None
    filled = latents.clone()
    if n > 0:
        filled[unknown] = space.sample(n, params, 1.0, latents.device)
    return filled


def relabel_latents(latents: th.Tensor, space: LatentSpace, fraction: float) -> th.Tensor:
    """
    Draw the z of a part of a batch anew: a fixed prior's z from the prior, a learned prior's from the batch's other rows.

    The paper learns from the stored z alone. But V(s,z) and the imagined steps from s hold for any z, whichever one led
    to s, so a state serves all z; with the stored z alone, an environment of long episodes shows each z few states.

    :param latents: stored z, (B, latent_dim)
    :param space: what z is
    :param fraction: share of the rows that get another z, 0 to 1
    :return: (B, latent_dim)
    """
    n = round(len(latents) * fraction)
    if n == 0 or space.dim == 0:
        return latents
    if space.policy_dim == 0:
        drawn = space.sample(n, None, 1.0, latents.device)
    else:
        drawn = latents[th.randperm(len(latents), device=latents.device)[:n]]
    return th.cat([drawn, latents[n:]])


def automatic_relabel(mean_episode_length: float) -> float:
    """
    Half where episodes have 1000 steps or more, in proportion less where they are shorter.

    The longer an episode, the more of the states that a batch is made of belong to one z. (Measured: on HalfCheetah, 1000
    steps an episode, a quarter multiplies the return at 10,000 steps, and half steadies it; on the maze, 50 steps, a quarter
    costs coverage.)

    :param mean_episode_length: of the stored episodes
    :return: share of a batch whose z is drawn anew
    """
    return 0.5 * min(1.0, mean_episode_length / 1000.0)


def with_episode_starts(batch: PolicyBatch, starts: PyTorchObs, n_starts: int) -> PolicyBatch:
    """
    :param batch: where the actor's imagined steps start
    :param starts: first observations of stored episodes, (n_starts, ...)
    :param n_starts: how many
    :return: the batch with them behind; their z is drawn by the update
    """
    if isinstance(starts, dict):
        obs: Any = {key: th.cat([batch.observations[key], value]) for key, value in starts.items()}  # type: ignore[index]
    else:
        obs = th.cat([batch.observations, starts])  # type: ignore[list-item]
    latents = batch.latents.new_zeros(n_starts, batch.latents.shape[1])
    flags = batch.episode_starts.new_ones(n_starts)
    return PolicyBatch(obs, th.cat([batch.latents, latents]), th.cat([batch.episode_starts, flags]))


def draw_steps(n_steps: int, batch: int, n_drawn: int | None, device: th.device) -> th.Tensor | None:
    """
    :param n_steps: K
    :param batch: B
    :param n_drawn: how many of each segment's steps; None: all
    :param device: of the segments
    :return: indices of different steps of each segment, (n_drawn, B); None: all in order
    """
    if n_drawn is None or n_drawn >= n_steps:
        return None
    return th.rand(n_steps, batch, device=device).topk(n_drawn, dim=0, sorted=False).indices


def take_steps(x: th.Tensor, steps: th.Tensor | None) -> th.Tensor:
    """
    :param x: (K, B, ...)
    :param steps: see :func:`draw_steps`
    :return: x of these steps, (n_drawn, B, ...)
    """
    if steps is None:
        return x
    return x[steps, th.arange(x.shape[1], device=x.device)]


def segment_novelty(bonus: IntrinsicReward, segments: SegmentSamples, steps: th.Tensor | None = None) -> th.Tensor:
    """
    :param bonus: the intrinsic reward
    :param segments: raw observations, as VecNormalize's moving statistics would make all of them new again and again
    :param steps: the M of K steps that want it, see :func:`draw_steps`; None: all
    :return: the error that the intrinsic reward of each of these steps is made of, (M, B)
    """

    def before(first: th.Tensor, following: th.Tensor) -> th.Tensor:
        return take_steps(th.cat([first.unsqueeze(0), following[:-1]]), steps).flatten(0, 1)

    first, following = segments.observations, segments.next_observations
    if isinstance(first, dict):
        obs: Any = {key: before(value, following[key]) for key, value in first.items()}  # type: ignore[index]
    else:
        obs = before(first, following)  # type: ignore[arg-type]
    next_obs = map_observations(following, lambda x: take_steps(x, steps).flatten(0, 1))
    actions = take_steps(segments.actions, steps).flatten(0, 1)
    return bonus.novelty(obs, actions, next_obs).view(-1, segments.mask.shape[1])
