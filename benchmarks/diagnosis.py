"""
Runs that are healthy and runs made to fail in each of the known ways: ``python -m benchmarks.diagnosis``.

Trains for some minutes, writes what was measured to ``benchmarks/results/diagnosis/<failure>.csv`` and draws it as
``docs/images/diagnosis.png``. ``--draw`` draws what is there; names of failures run these alone.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.bootstrap import ROOT
from benchmarks.diagnosis_cases import CASES, Case
from benchmarks.figures import PALETTE, pyplot, save_figure
from benchmarks.provenance import environment, origin
from benchmarks.runs import RESULTS, add_to_json, write_text
from sb3_rpg.diagnostics import DiagnosticsCallback, TrainingWarning
from sb3_rpg.diagnostics import detectors as thresholds

FOLDER = RESULTS / "diagnosis"
PICTURE = ROOT / "docs" / "images" / "diagnosis.png"
SEED = 0
#: updates of these small runs between two measurements, and before they are judged
EVERY, MIN_UPDATES = 40, 600
#: where a measurement becomes a sign of the failure
THRESHOLDS: dict[str, float] = {
    "mode_collapse": thresholds.IGNORED,
    "over_exploration": thresholds.EXPLORATION_SHARE,
    "model_bias": thresholds.MODEL_ERROR,
    "bonus_exhaustion": thresholds.BONUS_SPREAD,
    "value_overestimation": thresholds.VALUE_BIAS,
    "alpha_collapse": thresholds.ALPHA_LOW,
    "alpha_explosion": thresholds.ALPHA_HIGH,
}
#: measurements that differ by orders of magnitude
LOGARITHMIC = ("model_error", "bonus_spread", "ent_coef_change")

Rows = list[tuple[str, int, float, int]]


class Watched(NamedTuple):
    """What diagnostics saw of a run."""

    #: environment steps, and what was measured at them
    history: list[tuple[int, dict[str, float]]]
    #: the warnings' texts
    warnings: list[str]


def watch(case: Case, healthy: bool, seed: int) -> Watched:
    """
    :param case: what to run
    :param healthy: leave out what makes it fail
    :param seed: seed
    :return: what diagnostics saw
    """
    callback = DiagnosticsCallback(EVERY, MIN_UPDATES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TrainingWarning)
        case.run(healthy, seed, callback)
    texts = [str(warning.message) for warning in caught if issubclass(warning.category, TrainingWarning)]
    return Watched(callback.history, texts)


def run_case(case: Case, healthy_runs: dict[str, Watched]) -> Rows:
    """
    :param case: what to run, healthy and failing
    :param healthy_runs: those made so far, by what they depend on; several cases share one
    :return: run ("healthy" or "failing"), environment step, what was measured, 1 from the failure's warning on
    """
    key = repr((sorted(case.base.items()), case.reward, case.updates))
    if key not in healthy_runs:
        healthy_runs[key] = watch(case, healthy=True, seed=SEED)
    rows: Rows = []
    for name, watched in (("healthy", healthy_runs[key]), ("failing", watch(case, healthy=False, seed=SEED))):
        for text in watched.warnings:
            print(f"{case.name}, {name}: {text}\n", flush=True)
        own = [text for text in watched.warnings if text.startswith(f"{case.name}:")]
        warned_at = int(own[0].rpartition("(step ")[2].partition(";")[0]) if own else math.inf
        rows += [(name, step, measured[case.measured], int(step >= warned_at)) for step, measured in watched.history]
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """
    :param path: the CSV
    :param rows: see :func:`run_case`
    """
    lines = ["run,step,value,warned", *(f"{run},{step},{value:.6g},{warned}" for run, step, value, warned in rows)]
    write_text(path, "\n".join(lines) + "\n")


def read_rows(path: Path) -> Rows:
    """
    :param path: the CSV
    :return: see :func:`run_case`
    """
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["run"], int(row["step"]), float(row["value"]), int(row["warned"])) for row in csv.DictReader(file)]


def draw(folder: Path, picture: Path) -> None:
    """
    :param folder: of the CSVs
    :param picture: the PNG to write
    :raises ValueError: if a CSV is missing
    """
    plt = pyplot()
    missing = [case.name for case in CASES if not (folder / f"{case.name}.csv").is_file()]
    if missing:
        raise ValueError(f"folder={str(folder)!r} lacks {', '.join(missing)}; run `python -m benchmarks.diagnosis` first")
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.6), layout="constrained")
    for ax, case in zip(axes.flat, CASES, strict=False):
        rows = read_rows(folder / f"{case.name}.csv")
        for run, color in (("healthy", PALETTE[0]), ("failing", PALETTE[1])):
            steps = [step for name, step, *_ in rows if name == run]
            values = [value for name, _, value, _ in rows if name == run]
            ax.plot(steps, values, color=color, linewidth=1.8, label=run)
            warned = [(step, value) for name, step, value, flag in rows if name == run and flag]
            if warned:
                ax.plot(*warned[0], "v", color="black", markersize=8, zorder=5, label="warning")
        ax.axhline(THRESHOLDS[case.name], color="0.5", linewidth=1, linestyle="--", label="threshold")
        if case.measured in LOGARITHMIC:
            ax.set_yscale("log")
        if case.name == "value_overestimation":  # of both signs
            ax.set_yscale("symlog", linthresh=1.0)
        ax.set_title(case.name)
        ax.set_ylabel(case.label)
        ax.set_xlabel("environment steps")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    legend = axes.flat[len(CASES)]
    legend.axis("off")
    lines = {line.get_label(): line for ax in axes.flat for line in ax.get_lines()}
    names = ("healthy", "failing", "threshold", "warning")
    legend.legend(
        [lines[name] for name in names if name in lines], [n for n in names if n in lines], loc="center", frameon=False
    )
    save_figure(figure, picture)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("failures", nargs="*", metavar="FAILURE", help=f"failures to run (default: all): {', '.join(names)}")
    parser.add_argument("--draw", action="store_true", help="run nothing, draw what is there")
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.failures) - set(names):
        parser.error(f"unknown failures: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    if not parsed.draw:
        healthy_runs: dict[str, Watched] = {}
        code = origin()
        for case in CASES:
            if not parsed.failures or case.name in parsed.failures:
                write_rows(FOLDER / f"{case.name}.csv", run_case(case, healthy_runs))
                add_to_json(FOLDER / "manifest.json", {case.name: {**environment(), **code}})
    try:
        draw(FOLDER, PICTURE)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Picture: {PICTURE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
