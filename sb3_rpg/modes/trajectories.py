"""Rolling out chosen latents: one episode of the environment for each."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG

#: what a trajectory is described by: entries of the observation, the name of an entry of ``info``, or a function of both
Descriptor = Sequence[int] | str | Callable[[Any, dict[str, Any]], np.ndarray]


class Trajectory(NamedTuple):
    """One episode acted with one z; T steps."""

    #: z, (latent_dim,)
    latent: np.ndarray
    #: where the episode went, as the descriptor tells, the start included, (T + 1, d), float64; bytes of images as a whole
    path: np.ndarray
    #: (T, action_dim)
    actions: np.ndarray
    #: as the environment gave them, (T,)
    rewards: np.ndarray
    #: ``info["is_success"]`` of the last step, None where the environment does not tell
    success: bool | None

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(self.rewards.sum())


def roll_out(
    model: "RPG", env: VecEnv, latents: np.ndarray, descriptor: Descriptor | None = None, deterministic: bool = True
) -> list[Trajectory]:
    """
    One episode for each latent, as many at a time as there are environments. The environments are reset in between.

    Steps are taken beneath a ``VecNormalize``, whose statistics stay as they are, so that paths and rewards are the
    environment's own; what else is wrapped around it is left out.

    :param model: a trained model
    :param env: vectorised environment of any number of copies
    :param latents: (n, latent_dim)
    :param descriptor: what the paths are made of; None: the whole observation, flattened
    :param deterministic: the mode of pi(a|s,z) instead of samples
    :return: the episodes, in the order of the latents
    :raises ValueError: if the latents have another shape, or the descriptor does not fit the environment
    """
    latents = np.atleast_2d(np.asarray(latents, dtype=np.float32))
    if latents.shape[1:] != (model.latent_space.dim,) or len(latents) == 0:
        raise ValueError(f"`latents` has the shape {latents.shape}, expected (n, {model.latent_space.dim})")
    trajectories: list[Trajectory] = []
    for start in range(0, len(latents), env.num_envs):
        trajectories += _roll_out_together(model, env, latents[start : start + env.num_envs], descriptor, deterministic)
    return trajectories


def _roll_out_together(
    model: "RPG", env: VecEnv, latents: np.ndarray, descriptor: Descriptor | None, deterministic: bool
) -> list[Trajectory]:
    n, n_envs = len(latents), env.num_envs
    # Environments without a latent of their own repeat the last one; nothing of theirs is kept
    z = np.concatenate([latents, np.repeat(latents[-1:], n_envs - n, axis=0)])
    inner, normalize = beneath_normalization(env)
    raw: Any = inner.reset()
    # Wrappers have a list of the same name, which stays empty
    reset_infos = inner.unwrapped.reset_infos
    paths = [[_describe(descriptor, _at(raw, i), reset_infos[i])] for i in range(n)]
    actions: list[list[np.ndarray]] = [[] for _ in range(n)]
    rewards: list[list[float]] = [[] for _ in range(n)]
    success: list[bool | None] = [None] * n
    running = set(range(n))
    while running:
        action, _ = model.predict(normalize(raw), z, deterministic=deterministic)
        raw, reward, dones, infos = inner.step(action)
        for i in sorted(running):
            final = infos[i].get("terminal_observation")
            paths[i].append(_describe(descriptor, _at(raw, i) if final is None else final, infos[i]))
            actions[i].append(np.ravel(action[i]))
            rewards[i].append(float(reward[i]))
            if dones[i]:
                success[i] = bool(infos[i]["is_success"]) if "is_success" in infos[i] else None
                running.discard(i)
    return [
        Trajectory(latents[i], np.stack(paths[i]), np.stack(actions[i]), np.array(rewards[i]), success[i]) for i in range(n)
    ]


def beneath_normalization(env: VecEnv) -> tuple[VecEnv, Callable[[Any], Any]]:
    """
    :param env: a vectorised environment
    :return: what is beneath its ``VecNormalize``, and what makes a policy's input of an observation there, without moving the
        statistics; the environment itself, and nothing, where it has none
    """
    normalizer = unwrap_vec_normalize(env)
    return (env, lambda obs: obs) if normalizer is None else (normalizer.venv, normalizer.normalize_obs)


def first_observation(env: VecEnv) -> Any:
    """
    :param env: a vectorised environment; it is reset
    :return: the first observation of its first copy's episode, as a policy is given it
    """
    inner, normalize = beneath_normalization(env)
    return _at(normalize(inner.reset()), 0)


def _at(obs: Any, index: int) -> Any:
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def _describe(descriptor: Descriptor | None, obs: Any, info: dict[str, Any]) -> np.ndarray:
    if isinstance(descriptor, str):
        if descriptor not in info:
            raise ValueError(f"`descriptor`={descriptor!r} is no entry of the environment's info, which has {sorted(info)}")
        return np.array(info[descriptor], dtype=np.float64).ravel()
    if callable(descriptor):
        return np.array(descriptor(obs, info), dtype=np.float64).ravel()
    parts = [np.ravel(obs[key]) for key in sorted(obs)] if isinstance(obs, dict) else [np.ravel(obs)]
    flat = np.concatenate(parts)
    if descriptor is None:
        # Of images, all states as numbers of eight bytes would not fit into memory
        return flat if flat.dtype == np.uint8 else flat.astype(np.float64)
    indices = np.asarray(descriptor, dtype=np.int64)
    if indices.size == 0 or indices.min() < -len(flat) or indices.max() >= len(flat):
        raise ValueError(f"`descriptor`={list(descriptor)} names entries outside of the observation, which has {len(flat)}")
    return flat[indices].astype(np.float64)
