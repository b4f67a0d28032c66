"""
Figures and tables of results: ``python -m benchmarks.report <experiment>``.

Writes ``docs/images/<experiment>.png``, over steps or over time (``--x``), for mazes and the bandit pictures of where the
agents were beside it, and ``table.md`` beside the results, which is printed too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bootstrap import ROOT
from benchmarks.experiments import find_experiment
from benchmarks.figures import AXES, Curve, load_curves, save_curves, save_densities
from benchmarks.maps import save_maps
from benchmarks.results import Results, source_of
from benchmarks.run import locations
from benchmarks.runs import RESULTS, write_text
from benchmarks.schema import Experiment
from benchmarks.statistics import LEVEL, Estimate, Scores, has_rliable, interval_of_iqm, probability_of_improvement

IMAGES = ROOT / "docs" / "images"
TRAINING_HOURS = ("training_hours", "training_cpu_hours")


def final_scores(experiment: Experiment, curve: Curve) -> Scores:
    """
    :param experiment: the experiment
    :param curve: the runs of one algorithm
    :return: the final value of each run, see :class:`~benchmarks.experiments.Metric`
    """
    last = experiment.budget * (1 - experiment.metric.final_share)
    columns = curve.steps >= min(last, curve.steps[-1])
    return _scores(experiment, curve, curve.values[:, columns].mean(axis=1, keepdims=True))


def scores_at(experiment: Experiment, curve: Curve, step: int) -> Scores:
    """
    :param experiment: the experiment
    :param curve: the runs of one algorithm
    :param step: environment steps
    :return: what each run had reached by then: its last measurement up to that step
    """
    column = int(np.flatnonzero(curve.steps <= step)[-1])
    return _scores(experiment, curve, curve.values[:, [column]])


def _scores(experiment: Experiment, curve: Curve, values: npt.NDArray[np.float64]) -> Scores:
    try:
        return Scores(values, curve.seeds, (experiment.task.env_id,))
    except ValueError as error:
        raise ValueError(f"{curve.label}: {error}") from error


def make_table(experiment: Experiment, curves: Mapping[str, Curve], results: Results) -> str:
    """
    :param experiment: the experiment
    :param curves: its curves
    :param results: where they come from
    :return: a table in Markdown, with what it says in a line below
    """
    metric, groups = experiment.metric, experiment.groups_with(curves)
    lines = [] if groups else _score_lines(experiment, curves, results)
    for group in groups:
        part = {label: curve for label, curve in curves.items() if label in group.labels}
        lines += [f"### {group.title}", "", *_score_lines(experiment, part, results), ""]
    share = metric.final_share
    when = f"mean over the last {100 * share:.0f} % of" if share else "at the end of"
    lines += [
        *([] if groups else [""]),
        f"{experiment.task.env_id}, {when} {experiment.budget:,} environment steps. Interquartile mean over seeds, stratified "
        f"bootstrap ({'rliable' if has_rliable() else 'SciPy'}). Wall-clock hours on one core.",
    ]
    lines += [*_warning_lines(experiment, curves, results), *_milestone_lines(experiment, curves)]
    return "\n".join([*lines, *_cost_lines(experiment, curves, results)]) + "\n"


def _score_lines(experiment: Experiment, curves: Mapping[str, Curve], results: Results) -> list[str]:
    """How well: a table's lines."""
    scores = {label: final_scores(experiment, curve) for label, curve in curves.items()}
    baseline = scores.get(experiment.baseline)
    better_than = f"P(better than {experiment.baseline})"
    lines = [
        f"| algorithm | {experiment.metric.name} | {100 * LEVEL:.0f} % interval | {better_than} | seeds | hours a run |",
        "|---|---|---|---|---|---|",
    ]
    for label, score in scores.items():
        estimate = interval_of_iqm(score)
        better = "-"
        if baseline is not None and label != experiment.baseline:
            better = with_interval(probability_of_improvement(score, baseline))
        durations = [run["hours"] for run in results.manifest["runs"].get(label, {}).values()]
        hours = f"{np.mean(durations):.2f}" if durations else "-"
        cells = (label, _number(estimate.value), _interval(estimate), better, str(len(score.runs)), hours)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _warning_lines(experiment: Experiment, curves: Mapping[str, Curve], results: Results) -> list[str]:
    """A warning for each algorithm whose seeds do not belong together, wherever its runs were made, or end too early."""
    lines = []
    for label, curve in curves.items():
        if curve.steps[-1] < experiment.budget:
            lines += ["", f"**{label} ends after {curve.steps[-1]:,.0f} steps**. Complete it with `--on-change restart`."]
        if kinds := Results(source_of(results.folder, experiment, label)).mixed(label):
            seeds = "; ".join(", ".join(str(seed) for seed in sorted(mine)) for mine in kinds.values())
            lines += ["", f"**{label} mixes settings**: seeds {seeds}. Complete it with `--on-change restart`."]
    return lines


def _milestone_lines(experiment: Experiment, curves: Mapping[str, Curve]) -> list[str]:
    """How well on the way: a table's lines; none where the experiment names no steps."""
    if not experiment.milestones:
        return []
    titles = [f"{experiment.metric.name} at {step:,}" for step in experiment.milestones]
    lines = ["", f"| algorithm | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    for label, curve in curves.items():
        estimates = [interval_of_iqm(scores_at(experiment, curve, step)) for step in experiment.milestones]
        cells = [f"{_number(estimate.value)} ({_interval(estimate)})" for estimate in estimates]
        lines.append(f"| {' | '.join([label, *cells])} |")
    return lines


def _cost_lines(experiment: Experiment, curves: Mapping[str, Curve], results: Results) -> list[str]:
    """At what cost: a table's lines; none where no run tells."""
    rows = []
    for label in curves:
        runs = [run for run in results.manifest["runs"].get(label, {}).values() if "parameters" in run]
        if runs:
            thousands = experiment.budget / 1000
            wall, processor = (3600 * np.median([run[key] for run in runs]) / thousands for key in TRAINING_HOURS)
            memory, parameters = (np.median([run[key] for run in runs]) for key in ("peak_memory_mb", "parameters"))
            machines = sorted({_processor(results, run) for run in runs})
            cells = (f"{wall:.2f}", f"{processor:.2f}", f"{memory:,.0f} MB", f"{parameters:,.0f}", str(len(runs)))
            rows.append(f"| {' | '.join((label, *cells, ', '.join(machines)))} |")
    if not rows:
        return []
    return [
        "",
        "| algorithm | seconds for 1,000 steps | of the processor | peak memory | parameters | seeds | machine |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Training without evaluation, median over the seeds that recorded it; machines may differ, and may have been busy. "
        "Memory of the whole process, replay buffer included. Parameters that are trained, those of the bonus included.",
    ]


def _processor(results: Results, run: Mapping[str, Any]) -> str:
    return str(results.manifest["environments"].get(run.get("environment"), {}).get("processor", "-"))


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _interval(estimate: Estimate) -> str:
    return "-" if np.isnan(estimate.low) else f"{_number(estimate.low)} to {_number(estimate.high)}"


def with_interval(estimate: Estimate) -> str:
    """
    :param estimate: a number
    :return: as printed in tables, with its interval if it has one
    """
    number = _number(estimate.value)
    return number if np.isnan(estimate.low) else f"{number} ({_interval(estimate)})"


def report(experiment: Experiment, folder: Path, images: Path, x: str = "steps") -> list[Path]:
    """
    Write figures and table, and print the table.

    :param experiment: the experiment
    :param folder: its results
    :param images: folder of the figures
    :param x: what the curves are drawn over, a key of :data:`~benchmarks.figures.AXES`; over time, that figure is all
    :return: what was written
    :raises ValueError: if there are no results
    """
    if x != "steps":
        path = images / f"{experiment.name}_{x}.png"
        save_curves(path, experiment, load_curves(folder, experiment, x), x)
        return [path]
    curves = load_curves(folder, experiment)
    table = make_table(experiment, curves, Results(folder))
    print(table)
    written = [folder / "table.md"]
    write_text(written[0], table)
    # Where the end alone is measured there is no curve
    if experiment.metric.every < experiment.budget:
        written.append(images / f"{experiment.name}.png")
        save_curves(written[-1], experiment, curves)
    if experiment.has_maps:
        shown = experiment.groups[0].labels if experiment.groups else curves
        seen = {label: curve for label, curve in curves.items() if label in shown}
        written += save_maps(images, experiment, folder, seen)
    densities = images / f"{experiment.name}_densities.png"
    if save_densities(densities, experiment, folder, curves):
        written.append(densities)
    return written


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("experiment", help="name of an experiment, see `python -m benchmarks.run --list`")
    parser.add_argument("--x", choices=AXES, default="steps", help="what curves are drawn over (default: %(default)s)")
    parser.add_argument("--baseline", help="print the table alone, with probabilities of being better than this algorithm")
    parser.add_argument("--n-timesteps", "-n", type=int, help="as given to benchmarks.run")
    parser.add_argument("--tuning", action="store_true", help="as given to benchmarks.run")
    parsed = parser.parse_args(arguments)
    try:
        experiment = find_experiment(parsed.experiment)
        if parsed.n_timesteps is not None:
            experiment = experiment.with_budget(parsed.n_timesteps)
        _, folder = locations(experiment, parsed.tuning)
        if parsed.baseline is not None:
            experiment = replace(experiment, baseline=parsed.baseline)
            print(make_table(experiment, load_curves(folder, experiment), Results(folder)))
            return 0
        images = IMAGES if folder.is_relative_to(RESULTS) else folder
        for path in report(experiment, folder, images, parsed.x):
            print(f"written: {path}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
