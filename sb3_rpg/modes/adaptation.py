"""
Finding the z that still works when the world has changed: a door is blocked, a joint has gone weak.

The policy is not trained any further. Episodes in the changed world are few and dear, so they are spent by successive halving
(Karnin, Koren and Somekh, 2013, "Almost optimal exploration in multi-armed bandits") over candidates that differ in what they
do: each gets a trial, the better half of them another, and so on.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rpg.modes.choice import candidate_latents, latent_values
from sb3_rpg.modes.clusters import Mode
from sb3_rpg.modes.trajectories import Descriptor, Trajectory, first_observation, roll_out

if TYPE_CHECKING:
    from sb3_rpg.rpg import RPG


class Adaptation(NamedTuple):
    """What a few trials told."""

    #: the z to act with from now on, (latent_dim,)
    latent: np.ndarray
    #: mean score of its trials
    score: float
    #: standard error of that mean; None where it had a single trial
    standard_error: float | None
    #: share of its trials that succeeded, None where the environment does not tell
    success_rate: float | None
    #: episodes used
    n_trials: int
    #: every z that was tried, in the order of the first trials, (n, latent_dim)
    tried: np.ndarray
    #: scores of each of them, n lists
    scores: list[list[float]]
    #: all trials, in the order that they were made
    trajectories: list[Trajectory]


def adapt(
    model: "RPG",
    env: VecEnv | gym.Env,
    n_trials: int = 10,
    candidates: np.ndarray | None = None,
    score: Callable[[Trajectory], float] | None = None,
    target: float | None = None,
    descriptor: Descriptor | None = None,
    deterministic: bool = True,
) -> Adaptation:
    """
    Choose z anew by trial in an environment that has changed since training.

    Candidates are tried in their order, so those that go different ways should come first: give ``mode_latents(...)`` of modes
    that were found before the change. Without them, they are spread over the draws from pi(z|s1), beginning with the one that
    the model thinks best.

    :param model: a trained model
    :param env: the changed environment, one copy: copies beside it would use up episodes unseen
    :param n_trials: episodes that may be used at most
    :param candidates: latents to choose among, (n, latent_dim), those to try first in front
    :param score: what is to be made large, from a trial; None: the return
    :param target: stop as soon as a trial scores as much: enough is enough, where outcomes are not noisy
    :param descriptor: what the paths of the trials are made of, see :func:`~sb3_rpg.modes.roll_out`
    :param deterministic: the mode of pi(a|s,z) instead of samples
    :return: the best z, its estimates and all trials
    :raises ValueError: if ``env`` has several copies, the latents have another shape, or ``n_trials`` is below 1
    """
    if n_trials < 1:
        raise ValueError(f"`n_trials` must be at least 1, got {n_trials}")
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([partial(_itself, env)])
    if vec_env.num_envs != 1:
        raise ValueError(
            f"`env` has {vec_env.num_envs} copies, expected one: the others would use up episodes that nobody counts"
        )
    dim = model.latent_space.dim
    if candidates is None:
        # The start of an episode is looked at, no step is taken
        candidates = spread_latents(model, first_observation(vec_env), n_trials)
    candidates = np.asarray(candidates, dtype=np.float32)
    if candidates.ndim != 2 or candidates.shape[1] != dim or len(candidates) == 0:
        raise ValueError(f"`candidates` has the shape {candidates.shape}, expected (n, {dim})")
    trials: list[Trajectory] = []
    owners: list[int] = []

    def trial(index: int) -> float:
        trajectory = roll_out(model, vec_env, candidates[index : index + 1], descriptor, deterministic)[0]
        trials.append(trajectory)
        owners.append(index)
        return trajectory.episode_return if score is None else score(trajectory)

    best, scores = successive_halving(trial, len(candidates), n_trials, target)
    tried = list(dict.fromkeys(owners))
    own = scores[best]
    successes = [t.success for t, owner in zip(trials, owners, strict=True) if owner == best and t.success is not None]
    return Adaptation(
        latent=candidates[best],
        score=float(np.mean(own)),
        standard_error=float(np.std(own, ddof=1) / np.sqrt(len(own))) if len(own) > 1 else None,
        success_rate=float(np.mean(successes)) if successes else None,
        n_trials=len(trials),
        tried=candidates[tried],
        scores=[scores[i] for i in tried],
        trajectories=trials,
    )


def _itself(env: gym.Env) -> gym.Env:
    return env


def successive_halving(
    trial: Callable[[int], float], n_candidates: int, n_trials: int, target: float | None = None
) -> tuple[int, list[list[float]]]:
    """
    Find the best of several candidates by noisy trials.

    As many candidates enter as the trials suffice to halve down to one. Trials that are left then go to candidates that have
    not been tried, or, where there are none, to more trials of each. So do those left when a round ends with the same score
    for all (all failed, say): trying them again would tell little.

    :param trial: gives a score for the candidate of this number; the larger the better
    :param n_candidates: their number; earlier ones are tried first; where scores are equal, the one of more trials is
        taken, and the earlier of those
    :param n_trials: at most so many trials
    :param target: stop at the first trial that scores as much
    :return: the best candidate's number, and the scores of all trials of each candidate
    :raises ValueError: if there is no candidate or no trial
    """
    if n_candidates < 1 or n_trials < 1:
        raise ValueError(f"`n_candidates`={n_candidates} and `n_trials`={n_trials} must be at least 1")
    scores: list[list[float]] = [[] for _ in range(n_candidates)]
    untried = deque(range(n_candidates))
    survivors: list[int] = []
    finalists: list[int] = []
    left = n_trials
    while left > 0 and (survivors or untried):
        if not survivors:
            size = max(n for n in range(1, left + 1) if _cost_of_halving(n) <= left)
            survivors = [untried.popleft() for _ in range(min(size, len(untried)))]
        repeats = 1 if untried else left // _cost_of_halving(len(survivors))
        for index in [i for _ in range(repeats) for i in survivors]:
            scores[index].append(trial(index))
            left -= 1
            if target is not None and scores[index][-1] >= target:
                return index, scores
        means = np.array([np.mean(scores[i]) for i in survivors])
        all_alike = bool((means == means[0]).all())
        if len(survivors) <= 2 or (all_alike and untried):
            finalists.append(survivors[int(means.argmax())])
            survivors = []
        else:
            better = np.argsort(-means, kind="stable")[: (len(survivors) + 1) // 2]
            survivors = [survivors[i] for i in sorted(better)]
    return max(finalists, key=lambda i: (np.mean(scores[i]), len(scores[i]), -i)), scores


def _cost_of_halving(n: int) -> int:
    """Trials that it takes to halve ``n`` candidates down to one, with one trial each in every round."""
    cost = n
    while n > 2:
        n = (n + 1) // 2
        cost += n
    return cost


def mode_latents(trajectories: Sequence[Trajectory], modes: Sequence[Mode]) -> np.ndarray:
    """
    Candidates for :func:`adapt` that try different ways first: the most typical z of each mode, the best mode first, then the
    second most typical of each, and so on.

    :param trajectories: of different latents, from before the change
    :param modes: their modes
    :return: (n, latent_dim)
    :raises ValueError: if there are no modes
    """
    if len(modes) == 0:
        raise ValueError("`modes` is empty; find_modes(trajectories) finds them")
    ordered = sorted(modes, key=lambda mode: (-mode.mean_return, -mode.share))
    ranks = max(len(mode.members) for mode in ordered)
    return np.stack([trajectories[mode.members[r]].latent for r in range(ranks) for mode in ordered if r < len(mode.members)])


def spread_latents(model: "RPG", obs: np.ndarray | dict[str, np.ndarray], n: int) -> np.ndarray:
    """
    Latents that lie far from each other, for want of modes: of the fixed candidates the one of the highest value, then again
    and again the one that is farthest from those taken.

    :param model: a model
    :param obs: an episode's first observation
    :param n: at most so many
    :return: (n or as many as there are, latent_dim)
    """
    latents = candidate_latents(model, obs)
    taken = [int(latent_values(model, obs, latents).argmax())]
    distances = np.linalg.norm(latents - latents[taken[0]], axis=1)
    while len(taken) < min(n, len(latents)) and distances.max() > 0:
        taken.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(latents - latents[taken[-1]], axis=1))
    return latents[taken]
