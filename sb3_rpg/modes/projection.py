"""Paths without a descriptor: the few directions of the observation in which episodes differ, and actions as paths."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sb3_rpg.modes.clusters import stretch_means
from sb3_rpg.modes.trajectories import Trajectory

#: components that explain less than this share of what the first explains are taken for noise
NOISE_SHARE = 0.1
#: with more, everything is about as far from everything else, and modes fall apart: over the maze's 28 observations, three
#: components give the count that positions give, eight give three times as many
MAX_COMPONENTS = 3


class Projection(NamedTuple):
    """Trajectories described by principal components."""

    #: the same episodes with paths of shape (T + 1, k)
    trajectories: list[Trajectory]
    #: share of the differences between episodes that each component explains, the largest first, (k,)
    explained: np.ndarray
    #: weight of each dimension of the former paths, in units of its standard deviation, (k, d)
    components: np.ndarray


def principal_paths(
    trajectories: Sequence[Trajectory], n_components: int | None = None, n_points: int = 10, fixed_scale: float = 1e-6
) -> Projection:
    """
    Describe paths by the directions in which they differ most from each other.

    Each dimension is divided by its standard deviation over all states, as an observation's entries have different units.
    Principal components are then taken of the differences between episodes, of the means over equal stretches of time: not of
    all states, of which most of the variance may be what every episode does alike.

    :param trajectories: of different latents, described by whole observations, say
    :param n_components: number of components; None: those that explain at least a tenth of what the first explains, at most
        three
    :param n_points: see :func:`~sb3_rpg.modes.embed_paths`
    :param fixed_scale: dimensions that vary by less than this share of their size are left out as constant
    :return: the paths over the components; over one component that is 0 throughout where no dimension varies
    :raises ValueError: if there are no trajectories, or ``n_components`` is below 1
    """
    if len(trajectories) == 0:
        raise ValueError("`trajectories` is empty: roll some latents out first, see sb3_rpg.modes.roll_out")
    if n_components is not None and n_components < 1:
        raise ValueError(f"`n_components` must be at least 1, got {n_components}")
    # By episode, as all states of images at once would not fit into memory
    n_states = sum(len(t.path) for t in trajectories)
    mean = sum(t.path.sum(axis=0) for t in trajectories) / n_states
    spread = np.sqrt(sum(((t.path - mean) ** 2).sum(axis=0) for t in trajectories) / n_states)
    largest = np.max([np.abs(t.path).max(axis=0) for t in trajectories], axis=0)
    varies = spread > fixed_scale * largest
    scale = np.where(varies, spread, np.inf)
    means = np.stack([stretch_means((t.path - mean) / scale, n_points) for t in trajectories])  # (n, n_points, d)
    differences = (means - means.mean(axis=0)).reshape(-1, means.shape[-1])
    _, singular_values, axes = np.linalg.svd(differences, full_matrices=False)
    variances = singular_values**2
    total = float(variances.sum())
    explained = variances / total if total > 1e-12 * differences.size else np.zeros_like(variances)
    if n_components is None:
        n_components = min(int((explained > NOISE_SHARE * explained[0]).sum()), MAX_COMPONENTS) if explained.any() else 1
    n_components = min(n_components, len(axes))
    components = axes[:n_components]
    # The sign of a component is arbitrary; fix it, so that pictures are the same on every machine
    components = components * np.sign(components[np.arange(n_components), np.abs(components).argmax(axis=1)])[:, None]
    if not explained.any():
        components = np.zeros_like(components)
    projected = [t._replace(path=(t.path - mean) / scale @ components.T) for t in trajectories]
    return Projection(projected, explained[:n_components], components)


def action_paths(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """
    Describe episodes by what was done rather than by where it led: for tasks of a single step, say.

    :param trajectories: episodes
    :return: the same ones, their paths made of the actions, which the first is repeated of for the start, (T + 1, action_dim)
    """
    return [t._replace(path=np.concatenate([t.actions[:1], t.actions])) for t in trajectories]
