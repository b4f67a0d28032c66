"""Figure and table of ``python -m benchmarks.adaptation``: what trials are worth, by change and algorithm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figures import PALETTE, pyplot, save_figure
from benchmarks.report import with_interval
from benchmarks.statistics import Scores, interval_of_iqm

Rows = Sequence[Mapping[str, str]]


def values_by_seed(rows: Rows, label: str, change: str | None, column: str) -> np.ndarray:
    """
    :param rows: see :data:`benchmarks.adaptation.COLUMNS`
    :param label: an algorithm
    :param change: a change; None: the mean over all
    :param column: "unadapted", "best_trial" or "adapted"
    :return: one value a seed, by seed
    """
    mine = [row for row in rows if row["label"] == label and change in (None, row["change"])]
    seeds = sorted({int(row["seed"]) for row in mine})
    return np.array([np.mean([float(row[column]) for row in mine if int(row["seed"]) == seed]) for seed in seeds])


def make_table(rows: Rows, metric: str, trials: int) -> str:
    """
    :param rows: see :data:`benchmarks.adaptation.COLUMNS`
    :param metric: label of what is measured
    :param trials: trial episodes
    :return: a Markdown table: interquartile means over seeds of what each agent reaches on average over the changes, with
        bootstrap intervals
    """
    lines = [
        f"| algorithm | {metric} without trials | best of {trials} trials | after {trials} trials | seeds |",
        "|---|---|---|---|---|",
    ]
    for label in dict.fromkeys(row["label"] for row in rows):
        seeds = sorted({int(row["seed"]) for row in rows if row["label"] == label})
        estimates = [
            with_interval(interval_of_iqm(Scores(values_by_seed(rows, label, None, column)[:, None], seeds, [metric])))
            for column in ("unadapted", "best_trial", "adapted")
        ]
        lines.append(f"| {label} | {' | '.join(estimates)} | {len(seeds)} |")
    return "\n".join(lines) + "\n"


def draw_adaptation(path: Path, rows: Rows, metric: str, trials: int, colors: Mapping[str, str]) -> None:
    """
    For each change, and over all of them: hollow, what agents do without trials; full, after them; a point is a seed, the bar
    their mean.

    :param path: the PNG to write
    :param rows: see :data:`benchmarks.adaptation.COLUMNS`
    :param metric: label of the axis
    :param trials: trial episodes
    :param colors: by label; others get one of the palette
    """
    labels = list(dict.fromkeys(row["label"] for row in rows))
    changes: list[str | None] = [*dict.fromkeys(row["change"] for row in rows), None]
    figure, ax = pyplot().subplots(figsize=(8.0, 1.4 + 0.62 * len(changes)), layout="constrained")
    for i, label in enumerate(labels):
        color = colors.get(label, PALETTE[i % len(PALETTE)])
        for row, change in enumerate(changes):
            height = row + 0.62 * ((i + 0.5) / len(labels) - 0.5)
            before, after = (values_by_seed(rows, label, change, column) for column in ("unadapted", "adapted"))
            ax.plot([before.mean(), after.mean()], [height] * 2, color=color, linewidth=1.2, alpha=0.6, zorder=1)
            # Side by side, as many are exactly 0 or 1
            heights = height + np.linspace(-0.07, 0.07, len(after))
            ax.scatter(before, heights, s=26, facecolors="white", edgecolors=color, zorder=2)
            ax.scatter(after, heights, s=26, color=color, alpha=0.75, linewidths=0, zorder=3)
            ax.plot([after.mean()] * 2, [height - 0.09, height + 0.09], color=color, linewidth=3.0, zorder=4)
        n_seeds = len({row["seed"] for row in rows if row["label"] == label})
        ax.plot([], [], "o", color=color, label=f"{label} (n = {n_seeds})")
    ax.axhline(len(changes) - 1.5, color="0.6", linewidth=0.8)
    ax.set_yticks(range(len(changes)), [change or "all changes" for change in changes])
    ax.set_ylim(len(changes) - 0.5, -0.5)
    ax.set_xlabel(metric)
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = f"In a changed world: hollow without, full after {trials} trial episodes\na point is a seed, the bar their mean"
    ax.set_title(title, fontsize="medium")
    save_figure(figure, path)
