"""Pictures of who went where in a maze: all of it at the end, and trajectories at several stages of training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.figures import Curve, median_seed, pyplot, save_figure
from benchmarks.schema import Experiment
from benchmarks.visits import Visits, load_visits

#: moments of training that are shown, as shares of the budget
STAGES = (0.1, 0.25, 0.5, 1.0)
#: a stage's trajectories are those of this share of the budget before it
WINDOW = 0.1


def median_visits(folder: Path, curves: Mapping[str, Curve]) -> dict[str, tuple[int, Visits]]:
    """
    :param folder: folder of results
    :param curves: curves of an experiment
    :return: by label, seed and visits of the median run among those whose visits are there
    """
    chosen = {}
    for label, curve in curves.items():
        found = {seed: file for seed in curve.seeds if (file := folder / f"visits_{label}_{seed}.npz").is_file()}
        if found:
            seed = median_seed(curve, found)
            chosen[label] = seed, load_visits(found[seed])
    return chosen


def save_maps(images: Path, experiment: Experiment, folder: Path, curves: Mapping[str, Curve]) -> list[Path]:
    """
    Draw one run of each algorithm, the median of those whose visits are there.

    :param images: folder of the figures
    :param experiment: the experiment
    :param folder: folder of results
    :param curves: its curves
    :return: what was written
    """
    chosen = median_visits(folder, curves)
    if not chosen:
        return []
    draw = _drawing(experiment)
    figures = {
        "visits": _draw_visits(experiment, curves, chosen, draw),
        "trajectories": _draw_trajectories(experiment, chosen, draw),
    }
    written = []
    for name, figure in figures.items():
        written.append(images / f"{experiment.name}_{name}.png")
        save_figure(figure, written[-1])
    return written


def _draw_visits(
    experiment: Experiment, curves: Mapping[str, Curve], chosen: Mapping[str, tuple[int, Visits]], draw: Any
) -> Any:
    """Where the runs were in all of training."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(chosen), figsize=(4.6 * len(chosen), 4.9), squeeze=False, layout="constrained")
    for ax, (label, (seed, visits)) in zip(axes[0], chosen.items(), strict=True):
        curve = curves[label]
        final = curve.values[curve.seeds.index(seed), -1]
        title = f"{label}, seed {seed}: {experiment.metric.name} {final:.2f}"
        latents = None if visits.latents is None else visits.latents[visits.episodes]
        draw(ax, visits.positions, latents, title=title, size=3)
    n_states = max(len(visits.positions) for _, visits in chosen.values())
    figure.suptitle(f"{n_states:,} of the states visited in {experiment.budget:,} steps, coloured by z (grey: there is none)")
    return figure


def _draw_trajectories(experiment: Experiment, chosen: Mapping[str, tuple[int, Visits]], draw: Any) -> Any:
    """The trajectories of several stages, a row an algorithm, in colours that a z keeps through its row."""
    from sb3_rpg.envs.maze_plot import share_legend

    plt = pyplot()
    size = (3.0 * len(STAGES) + 0.9, 3.1 * len(chosen) + 0.6)
    figure, axes = plt.subplots(len(chosen), len(STAGES), figsize=size, squeeze=False, layout="constrained")
    for row, (label, (seed, visits)) in zip(axes, chosen.items(), strict=True):
        for ax, stage in zip(row, STAGES, strict=True):
            step = round(stage * experiment.budget)
            episodes = visits.episodes_between(step - round(WINDOW * experiment.budget), step)
            latents = None if visits.latents is None else visits.latents[episodes]
            title = f"up to {step:,} steps" if ax in axes[0] else None
            draw(
                ax,
                visits.trajectories(episodes),
                latents,
                trajectories=True,
                among=visits.latents,
                title=title,
                size=0,
                alpha=1.0,
            )
        share_legend(row)
        row[0].set_ylabel(f"{label}, seed {seed}")
    figure.suptitle(f"Trajectories of the {WINDOW:.0%} of the budget before each step, coloured by z (grey: there is none)")
    return figure


def _drawing(experiment: Experiment) -> Any:
    """The function that draws positions in what the experiment's task looks like; rewarded rooms are tinted."""
    import gymnasium as gym

    from sb3_rpg.envs.maze_plot import draw_maze, draw_visits
    from sb3_rpg.envs.push_plot import draw_push_visits

    reward = gym.spec(experiment.task.env_id).kwargs.get("reward", "none")
    maze = partial(draw_visits, geometry=partial(draw_maze, reward=reward))
    return {"maze": maze, "push": draw_push_visits}[experiment.task.vec_env]
