"""Where a policy's actions on the bandit are while it learns: histograms, small enough for git."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Counts = npt.NDArray[np.int64]

#: equal bins of the actions in [-1, 1]
BINS = 100
#: moments of training that the figure shows, as shares of the budget
STAGES = (0.0, 0.125, 0.25, 0.5, 1.0)


class Densities(NamedTuple):
    """The course of one run."""

    #: environment steps of the histograms, ascending, (T,)
    steps: npt.NDArray[np.int64]
    #: density of the actions in each bin, (T, BINS)
    values: npt.NDArray[np.float64]


def count_actions(actions: npt.ArrayLike) -> Counts:
    """
    :param actions: actions in [-1, 1], of any shape
    :return: how many lie in each bin, (BINS,)
    """
    return np.histogram(actions, BINS, (-1.0, 1.0))[0].astype(np.int64)


def save_densities(path: Path, counts: Mapping[int, Counts]) -> None:
    """
    :param path: the file to write: ``steps`` (T,), ``counts`` (T, BINS)
    :param counts: histograms by environment step
    """
    steps = sorted(counts)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, steps=np.array(steps, dtype=np.int32), counts=np.array([counts[step] for step in steps], dtype=np.uint16)
    )


def load_densities(path: Path) -> Densities:
    """
    :param path: a file of :func:`save_densities`
    :return: its densities
    """
    with np.load(path) as arrays:
        steps, counts = arrays["steps"].astype(np.int64), arrays["counts"].astype(np.float64)
    return Densities(steps, counts / counts.sum(axis=1, keepdims=True) * (BINS / 2.0))


def at_stages(densities: Densities, budget: int) -> list[tuple[int, npt.NDArray[np.float64]]]:
    """
    :param densities: the course of a run
    :param budget: environment steps of the run
    :return: step and density of the histogram nearest to each of :data:`STAGES`
    """
    nearest = [int(np.abs(densities.steps - stage * budget).argmin()) for stage in STAGES]
    return [(int(densities.steps[i]), densities.values[i]) for i in nearest]


def draw_density(ax: Axes, densities: Sequence[npt.NDArray[np.float64]], shown: int, color: Any) -> None:
    """
    One moment: the reward in grey, one run filled, the others as lines; each at its own peak's height, as peaks grow
    twentyfold in training.

    :param ax: axes to draw on
    :param densities: of each run, (BINS,)
    :param shown: index of the run that is filled
    :param color: matplotlib's
    """
    from sb3_rpg.envs import bandit_reward
    from sb3_rpg.envs.bandit import GLOBAL_OPTIMUM, LOCAL_OPTIMUM

    edges, grid = np.linspace(-1.0, 1.0, BINS + 1), np.linspace(-1.0, 1.0, 801)
    ax.fill_between(grid, bandit_reward(grid) / 1.1, color="0.86", linewidth=0)
    for optimum in (GLOBAL_OPTIMUM, LOCAL_OPTIMUM):
        ax.axvline(optimum, color="0.6", linewidth=0.8, linestyle=":")
    for i, density in enumerate(densities):
        if i != shown:
            ax.stairs(density / density.max(), edges, color=color, linewidth=0.6, alpha=0.35)
    ax.stairs(densities[shown] / densities[shown].max(), edges, color=color, fill=True, alpha=0.55)
    ax.stairs(densities[shown] / densities[shown].max(), edges, color=color, linewidth=1.2)
    ax.set(xlim=(-1.0, 1.0), ylim=(0.0, 1.08), yticks=[], xticks=[-1.0, -0.5, 0.0, 0.5, 1.0])
    ax.spines[["top", "right", "left"]].set_visible(False)
