"""Which trajectories are the same solution: modes, how many there are, how far apart, how good. Needs the extra ``modes``."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sb3_rpg.modes.trajectories import Trajectory

#: cells of the largest grid that measures are taken over
MAX_CELLS = 10**6


class Mode(NamedTuple):
    """Trajectories that go the same way."""

    #: 0 is the largest mode
    number: int
    #: indices of its trajectories, the one nearest to the middle first
    members: np.ndarray
    #: z of the trajectory nearest to the middle, (latent_dim,)
    latent: np.ndarray
    #: share of all trajectories
    share: float
    mean_return: float
    #: share of successful ones, None where the environment does not tell
    success_rate: float | None


def embed_paths(trajectories: Sequence[Trajectory], n_points: int = 10) -> np.ndarray:
    """
    Paths as their means over equal stretches of time, so that episodes of different lengths can be compared, and what changes
    faster than a stretch, such as the phase of a gait, does not count.

    Each dimension of the descriptor keeps its scale: choose dimensions of one unit, or scale them.

    :param trajectories: n of them
    :param n_points: stretches that each path is cut into; the start, which all share, is part of none
    :return: (n, n_points * d), scaled such that the root mean square distance from the mean is 1 (all 0 where all are alike)
    """
    embedded = _centred_stretches(trajectories, n_points)
    spread = np.sqrt((embedded**2).sum(axis=1).mean())
    # Below this, differences are rounding errors
    scale = np.abs(np.stack([t.path[-1] for t in trajectories])).max(initial=1.0)
    return embedded / spread if spread > 1e-6 * scale else np.zeros_like(embedded)


def stretch_means(path: np.ndarray, n_points: int) -> np.ndarray:
    """
    :param path: (T + 1, d), the start first
    :param n_points: equal stretches of the T steps; where T is no multiple, steps at their ends count in part
    :return: mean over each stretch, (n_points, d)
    """
    n_steps = len(path) - 1
    sums = np.concatenate([np.zeros((1, path.shape[1])), np.cumsum(path[1:], axis=0)])
    ends = np.linspace(0, n_steps, n_points + 1)
    # The integral of a step function is linear in between
    below = np.minimum(ends.astype(int), n_steps - 1)
    integral = sums[below] + (ends - below)[:, None] * (sums[below + 1] - sums[below])
    return np.diff(integral, axis=0) * (n_points / n_steps)


def path_spread(trajectories: Sequence[Trajectory], n_points: int = 10) -> float:
    """
    How far the paths are apart: 0 where z changes nothing and the environment is deterministic.

    :param trajectories: n of them
    :param n_points: see :func:`embed_paths`
    :return: root mean square distance of the paths' stretches from those of the mean path, in the descriptor's units
    """
    return float(np.sqrt((_centred_stretches(trajectories, n_points) ** 2).sum(axis=1).mean() / n_points))


def _centred_stretches(trajectories: Sequence[Trajectory], n_points: int) -> np.ndarray:
    stretches = np.stack([stretch_means(t.path, n_points).ravel() for t in trajectories])
    return stretches - stretches.mean(axis=0)


def find_modes(trajectories: Sequence[Trajectory], threshold: float = 0.7, n_points: int = 10) -> list[Mode]:
    """
    Average-linkage clustering of the paths: two groups are one mode while their mean distance is below ``threshold`` times
    the spread of all paths.

    The threshold is relative, so that it needs no knowledge of the task; where all paths are alike there is one mode. At
    the default, modes that lie all around are told apart up to eight; a smaller one tells finer modes apart. (Density-based
    clustering calls a third of a maze's trajectories noise, and the number of clusters of the best silhouette jumps
    between 2 and 16 with the trajectories that are drawn; this count moves by two or three.)

    :param trajectories: of different latents
    :param threshold: in units of the root mean square distance of the paths from their mean
    :param n_points: see :func:`embed_paths`
    :return: the modes, the largest first
    :raises ImportError: if scikit-learn is missing
    :raises ValueError: if there are fewer than two trajectories, or the threshold or the number of points is not positive
    """
    if len(trajectories) < 2:
        raise ValueError(f"`trajectories` holds {len(trajectories)}; modes need at least two, better a hundred")
    if threshold <= 0 or n_points < 1:
        raise ValueError(f"`threshold`={threshold} and `n_points`={n_points} must be positive")
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError as error:
        raise ImportError('modes need scikit-learn: pip install "sb3_rpg[modes]"') from error
    embedded = embed_paths(trajectories, n_points)
    if not embedded.any():
        labels = np.zeros(len(trajectories), dtype=int)
    else:
        clustering = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage="average")
        labels = clustering.fit_predict(embedded)
    sizes = np.bincount(labels)
    modes = []
    for number, label in enumerate(np.argsort(-sizes, kind="stable")):
        members = np.flatnonzero(labels == label)
        distances = np.linalg.norm(embedded[members] - embedded[members].mean(axis=0), axis=1)
        members = members[np.argsort(distances, kind="stable")]
        chosen = [trajectories[int(i)] for i in members]
        successes = [t.success for t in chosen if t.success is not None]
        modes.append(
            Mode(
                number=number,
                members=members,
                latent=chosen[0].latent,
                share=len(members) / len(trajectories),
                mean_return=float(np.mean([t.episode_return for t in chosen])),
                success_rate=float(np.mean(successes)) if successes else None,
            )
        )
    return modes


def effective_mode_count(modes: Sequence[Mode]) -> float:
    """
    exp of the entropy of the modes' shares: n for n modes of one size, less where some are rare, so that a single stray
    trajectory hardly counts.

    :param modes: the modes
    :return: at least 1
    """
    shares = np.array([mode.share for mode in modes])
    return float(np.exp(-(shares * np.log(shares)).sum()))


class Diversity(NamedTuple):
    """Measures of the quality-diversity field over a grid of the descriptor's space."""

    #: share of the grid's cells that a trajectory ends in
    coverage: float
    #: sum over these cells of the best return above ``worst_return``
    qd_score: float
    #: entropy of the visited states' distribution over the cells, in nats
    state_entropy: float


def diversity(
    trajectories: Sequence[Trajectory],
    low: Sequence[float],
    high: Sequence[float],
    n_bins: int = 10,
    worst_return: float = 0.0,
) -> Diversity:
    """
    :param trajectories: of different latents
    :param low: lower bounds of the descriptor's dimensions, (d,)
    :param high: upper bounds, (d,); what lies outside counts to the outermost cells
    :param n_bins: cells along each dimension
    :param worst_return: what the return is counted from
    :return: the measures
    :raises ValueError: if there are no trajectories, one is not finite, the bounds do not fit the descriptor, or the grid has
        too many dimensions to say anything
    """
    if len(trajectories) == 0 or n_bins < 1:
        raise ValueError(f"`trajectories` holds {len(trajectories)} and `n_bins`={n_bins}; both must be at least 1")
    lower, upper = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    dim = trajectories[0].path.shape[1]
    if lower.shape != (dim,) or upper.shape != (dim,) or not (lower < upper).all():
        raise ValueError(f"`low`={list(low)} and `high`={list(high)} must be {dim} bounds each, low below high")
    if not all(np.isfinite(trajectory.path).all() for trajectory in trajectories):
        raise ValueError("`trajectories` holds paths that are not finite; describe them by what the whole episode has")
    if n_bins**dim > MAX_CELLS:
        raise ValueError(
            f"`n_bins`={n_bins} over {dim} dimensions is a grid of {n_bins**dim:.0e} cells, nearly all empty: describe paths "
            "by fewer dimensions, such as two principal ones, see principal_paths"
        )

    def cells(points: np.ndarray) -> np.ndarray:
        places = np.clip(((points - lower) / (upper - lower) * n_bins).astype(int), 0, n_bins - 1)
        return np.ravel_multi_index(tuple(places.T), (n_bins,) * dim)

    best: dict[int, float] = {}
    for trajectory, cell in zip(trajectories, cells(np.stack([t.path[-1] for t in trajectories])), strict=True):
        best[int(cell)] = max(best.get(int(cell), -np.inf), trajectory.episode_return)
    _, counts = np.unique(cells(np.concatenate([t.path for t in trajectories])), return_counts=True)
    shares = counts / counts.sum()
    return Diversity(
        coverage=len(best) / n_bins**dim,
        qd_score=float(sum(value - worst_return for value in best.values())),
        state_entropy=float(-(shares * np.log(shares)).sum()),
    )
