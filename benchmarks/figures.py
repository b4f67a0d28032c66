"""Pictures of results: learning curves, and where actions are on the bandit; who went where is in :mod:`benchmarks.maps`."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.densities import STAGES, at_stages, draw_density, load_densities
from benchmarks.results import read_runs
from benchmarks.runs import Row
from benchmarks.schema import METRIC_LABELS, Experiment
from benchmarks.statistics import FloatArray, interval_of_curve, iqm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREYS = ("0.35", "0.6")
#: with fewer seeds, an interval says little and the seeds themselves are shown
SEEDS_FOR_INTERVALS = 5
DPI = 130
#: points of a curve over time
TIME_POINTS = 100
#: panels beside each other
COLUMNS = 2
#: what curves can be drawn over: the rows that tell it, and the label of the axis
AXES: dict[str, tuple[str | None, str]] = {
    "steps": (None, "environment steps"),
    "time": ("seconds", "hours of training"),
    "cpu": ("cpu_seconds", "processor hours of training"),
}


@dataclass(frozen=True)
class Curve:
    """
    One metric of one algorithm.

    :param label: label of the algorithm
    :param seeds: seeds
    :param steps: environment steps, or hours where the curve is one over time, shape (T,)
    :param values: shape (seeds, T)
    """

    label: str
    seeds: tuple[int, ...]
    steps: FloatArray
    values: FloatArray


def load_curves(folder: Path, experiment: Experiment, x: str = "steps") -> dict[str, Curve]:
    """
    :param folder: folder of results
    :param experiment: the experiment
    :param x: a key of :data:`AXES`
    :return: the curves of its metric, by label, in the experiment's order; algorithms without results are left out, and over
        time those without clocks
    :raises ValueError: if there are no results at all
    """
    if x != "steps":
        return _load_curves_over_time(folder, experiment, x)
    curves = {}
    for algorithm in experiment.algorithms:
        runs = {
            seed: {row.step: row.value for row in rows if row.metric == experiment.metric.name}
            for seed, rows in sorted(read_runs(folder, experiment, algorithm.label).items())
        }
        if not runs:
            continue
        steps = sorted(set.intersection(*(set(run) for run in runs.values())))
        values = np.array([[run[step] for step in steps] for run in runs.values()], dtype=np.float64)
        curves[algorithm.label] = Curve(algorithm.label, tuple(runs), np.array(steps, dtype=np.float64), values)
    if not curves:
        raise ValueError(f"folder={str(folder)!r} holds no results of {experiment.name!r}; run the experiment first")
    return curves


def _load_curves_over_time(folder: Path, experiment: Experiment, x: str) -> dict[str, Curve]:
    clock, _ = AXES[x]
    curves = {}
    for algorithm in experiment.algorithms:
        runs = {}
        for seed, rows in sorted(read_runs(folder, experiment, algorithm.label).items()):
            steps, values = _columns(rows, experiment.metric.name)
            clock_steps, seconds = _columns(rows, clock)
            if len(steps) and len(clock_steps):
                runs[seed] = np.interp(steps, clock_steps, seconds) / 3600, values
        if runs:
            # As long as all seeds ran
            hours = np.linspace(0.0, min(times[-1] for times, _ in runs.values()), TIME_POINTS)
            values = np.stack([np.interp(hours, times, values) for times, values in runs.values()])
            curves[algorithm.label] = Curve(algorithm.label, tuple(runs), hours, values)
    if not curves:
        raise ValueError(
            f"folder={str(folder)!r} holds no results of {experiment.name!r} with {clock!r} beside them; run the experiment, "
            "or draw it over steps"
        )
    return curves


def _columns(rows: Sequence[Row], metric: str | None) -> tuple[FloatArray, FloatArray]:
    """Steps and values of a metric, in the order of the steps."""
    pairs = sorted((row.step, row.value) for row in rows if row.metric == metric)
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def colors_of(experiment: Experiment) -> dict[str, str]:
    """
    :param experiment: the experiment
    :return: a colour a label, the same in all its figures, also while results are missing; within a group, which is a panel,
        no two are alike as long as the palette lasts
    """
    groups = [group.labels for group in experiment.groups] or [tuple(algorithm.label for algorithm in experiment.algorithms)]
    learned = [algorithm.label for algorithm in experiment.algorithms if algorithm.learns]
    n_groups = {label: sum(label in group for group in groups) for label in learned}
    greys = iter(GREYS * 3)
    colors = {algorithm.label: next(greys) for algorithm in experiment.algorithms if not algorithm.learns}
    # Those of several panels choose first
    for label in sorted(learned, key=lambda label: -n_groups[label]):
        beside = {other for group in groups if label in group for other in group}
        taken = {colors[other] for other in beside & colors.keys()}
        free = [color for color in PALETTE if color not in taken]
        colors[label] = free[0] if free else PALETTE[len(colors) % len(PALETTE)]
    return colors


def draw_curves(
    ax: Axes, experiment: Experiment, curves: Mapping[str, Curve], labels: Collection[str] | None = None, x: str = "steps"
) -> None:
    """
    :param ax: axes to draw on
    :param experiment: the experiment
    :param curves: see :func:`load_curves`
    :param labels: the curves to draw; None: all
    :param x: a key of :data:`AXES`
    """
    colors = colors_of(experiment)
    for algorithm in experiment.algorithms:
        curve = curves.get(algorithm.label)
        if curve is None or (labels is not None and algorithm.label not in labels):
            continue
        color = colors[algorithm.label]
        name = f"{algorithm.label} (n = {len(curve.seeds)})"
        if not algorithm.learns:
            ax.plot(curve.steps, iqm(curve.values, axis=0), "--", color=color, linewidth=1.4, label=name)
            continue
        middle, low, high = interval_of_curve(curve.values, curve.seeds)
        ax.plot(curve.steps, middle, color=color, linewidth=2, label=name)
        if len(curve.seeds) < SEEDS_FOR_INTERVALS:
            ax.plot(curve.steps, curve.values.T, color=color, linewidth=0.7, alpha=0.5)
        else:
            ax.fill_between(curve.steps, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set_xlabel(AXES[x][1])
    ax.set_ylabel(METRIC_LABELS[experiment.metric.name])
    if x == "steps":
        ax.set_xlim(0, experiment.budget)
        ax.xaxis.set_major_formatter("{x:,.0f}")
    else:
        ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


def save_curves(path: Path, experiment: Experiment, curves: Mapping[str, Curve], x: str = "steps") -> None:
    """
    One panel a group, one for all where there are none.

    :param path: the PNG to write
    :param experiment: the experiment
    :param curves: see :func:`load_curves`
    :param x: a key of :data:`AXES`
    """
    plt = pyplot()
    learned = {algorithm.label for algorithm in experiment.algorithms if algorithm.learns}
    few = {len(curve.seeds) < SEEDS_FOR_INTERVALS for label, curve in curves.items() if label in learned}
    shown = {True: f"thin: each seed, of less than {SEEDS_FOR_INTERVALS}", False: "shaded: 95 % bootstrap interval"}
    title = ", ".join(["bold: interquartile mean over n seeds", *(shown[kind] for kind in sorted(few))])
    title = f"{experiment.title}\n{title}"
    groups = experiment.groups_with(curves)
    if not groups:
        figure, ax = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
        draw_curves(ax, experiment, curves, x=x)
        ax.set_title(title, fontsize="medium")
    else:
        n_rows = -(-len(groups) // COLUMNS)
        figure, axes = plt.subplots(
            n_rows, COLUMNS, figsize=(7.5 * COLUMNS, 3.4 * n_rows), squeeze=False, layout="constrained"
        )
        for ax in axes.flat[len(groups) :]:
            ax.remove()
        for ax, group in zip(axes.flat, groups, strict=False):
            draw_curves(ax, experiment, curves, group.labels, x)
            ax.set_title(textwrap.fill(group.title, 60), fontsize="medium")
        figure.suptitle(title, fontsize="medium")
    save_figure(figure, path)


def median_seed(curve: Curve, seeds: Collection[int]) -> int:
    """
    :param curve: the runs of one algorithm
    :param seeds: the seeds to choose from
    :return: seed of the run that ends in the middle of them (the lower one of two), neither the best nor the worst
    """
    finals = {seed: value for seed, value in zip(curve.seeds, curve.values[:, -1], strict=True) if seed in seeds}
    order = sorted(finals, key=lambda seed: finals[seed])
    return order[(len(order) - 1) // 2]


def save_densities(path: Path, experiment: Experiment, folder: Path, curves: Mapping[str, Curve]) -> bool:
    """
    Draw, as Fig. 4 of the paper, where the actions of each algorithm are at several stages of training.

    :param path: the PNG to write
    :param experiment: the experiment
    :param folder: folder of results
    :param curves: its curves
    :return: whether there was anything to draw
    """
    files = {
        label: {seed: file for seed in curve.seeds if (file := folder / f"densities_{label}_{seed}.npz").is_file()}
        for label, curve in curves.items()
    }
    labels = [label for label, found in files.items() if found]
    if not labels:
        return False
    plt = pyplot()
    size = (2.3 * len(STAGES) + 0.9, 1.35 * len(labels) + 0.9)
    figure, axes = plt.subplots(len(labels), len(STAGES), figsize=size, sharex=True, squeeze=False, layout="constrained")
    colors = colors_of(experiment)
    for i, label in enumerate(labels):
        runs = [at_stages(load_densities(file), experiment.budget) for file in files[label].values()]
        shown = list(files[label]).index(median_seed(curves[label], files[label]))
        for ax, moments in zip(axes[i], zip(*runs, strict=True), strict=True):
            draw_density(ax, [density for _, density in moments], shown, colors[label])
            if i == 0:
                ax.set_title(f"{moments[shown][0]:,} steps", fontsize="medium")
        axes[i, 0].set_ylabel(f"{label}\n(n = {len(runs)})", rotation=0, ha="right", va="center")
    figure.supxlabel("action", fontsize="medium")
    figure.suptitle(
        f"{experiment.title}\ngrey: reward; filled: density of the median run's actions, to its own scale; lines: other seeds",
        fontsize="medium",
    )
    save_figure(figure, path)
    return True


def pyplot() -> Any:
    """
    :return: matplotlib.pyplot, for files
    :raises ValueError: if matplotlib is missing
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("figures need matplotlib: run `pip install 'sb3_rpg[plots]'`") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save_figure(figure: Any, path: Path) -> None:
    """
    :param figure: a figure, closed afterwards
    :param path: the PNG to write
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version that would change the file at every drawing
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    pyplot().close(figure)
