"""Statistics over seeds: interquartile means, stratified-bootstrap intervals, probability of improvement."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

#: resamples of a bootstrap
RESAMPLES = 5000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number with its interval; the interval is NaN where a single run cannot tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """
    One number a run and task. Swapped axes would give intervals near zero, hence the names of both.

    :param values: shape (runs, tasks)
    :param runs: names of the runs, such as their seeds
    :param tasks: names of the tasks
    :raises ValueError: if the shape is another, or a value is not finite
    """

    values: FloatArray
    runs: Sequence[Any]
    tasks: Sequence[str]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.runs), len(self.tasks)):
            raise ValueError(
                f"values must have shape (runs, tasks) = ({len(self.runs)}, {len(self.tasks)}), got {self.values.shape}; "
                "transpose them if runs and tasks are swapped"
            )
        if not np.isfinite(self.values).all():
            diverged = [run for run, values in zip(self.runs, self.values, strict=True) if not np.isfinite(values).all()]
            raise ValueError(f"values must be finite, those of runs {diverged} are not: did they diverge? Their logs may tell")


def has_rliable() -> bool:
    """
    :return: whether rliable is installed; it is used where it is
    """
    return importlib.util.find_spec("rliable") is not None


def iqm(values: FloatArray, axis: int | None = None) -> Any:
    """
    Mean of the middle half; with fewer than four values, of all.

    :param values: numbers
    :param axis: axis to take the mean over; None: all
    :return: the mean
    """
    return stats.trim_mean(values, 0.25, axis=axis)


def interval_of_iqm(scores: Scores, seed: int = 0) -> Estimate:
    """
    :param scores: of one algorithm
    :param seed: seed of the bootstrap
    :return: interquartile mean over runs and tasks
    """
    value = float(iqm(scores.values))
    if len(scores.runs) < 2:
        return Estimate(value, np.nan, np.nan)
    if has_rliable():
        return Estimate(value, *_rliable_interval(scores.values, lambda values: np.array([iqm(values)]), seed))
    # One sample a task, resampled on its own: the bootstrap is stratified
    samples = tuple(scores.values.T)
    low, high = _scipy_interval(samples, lambda *parts, axis: iqm(np.concatenate(parts, axis=axis), axis=axis), seed)
    return Estimate(value, float(low), float(high))


def probability_of_improvement(scores: Scores, baseline: Scores, seed: int = 0) -> Estimate:
    """
    How often a run of an algorithm beats one of the baseline on the same task, ties counting half.

    :param scores: of the algorithm
    :param baseline: of the baseline
    :param seed: seed of the bootstrap
    :return: the probability, as the mean over tasks
    :raises ValueError: if the tasks differ
    """
    if list(scores.tasks) != list(baseline.tasks):
        raise ValueError(f"scores are of tasks {scores.tasks}, those of the baseline of {baseline.tasks}; use the same ones")
    n_tasks = len(scores.tasks)

    def statistic(*columns: FloatArray, axis: int) -> Any:
        del axis  # always the last
        wins = [_wins(x, y) for x, y in zip(columns[:n_tasks], columns[n_tasks:], strict=True)]
        return np.mean(wins, axis=0)

    columns = (*scores.values.T, *baseline.values.T)
    value = float(statistic(*columns, axis=-1))
    if min(len(scores.runs), len(baseline.runs)) < 2:
        return Estimate(value, np.nan, np.nan)
    if has_rliable():
        # rliable's own function also computes p-values, at every resample

        def of_pair(x: FloatArray, y: FloatArray) -> Any:
            return statistic(*x.T, *y.T, axis=-1)

        return Estimate(value, *_rliable_interval((scores.values, baseline.values), of_pair, seed))
    low, high = _scipy_interval(columns, statistic, seed)
    return Estimate(value, float(low), float(high))


def interval_of_curve(values: FloatArray, runs: Sequence[Any], seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """
    :param values: a curve a run on one task, shape (runs, steps)
    :param runs: names of the runs
    :param seed: seed of the bootstrap
    :return: interquartile mean, and both ends of its interval, at each step
    :raises ValueError: if the shape is another
    """
    if values.ndim != 2 or len(values) != len(runs):
        raise ValueError(f"values must have shape (runs, steps) with {len(runs)} runs, got {values.shape}; transpose them")
    middle = np.asarray(iqm(values, axis=0), dtype=np.float64)
    if len(runs) < 2:
        return middle, middle, middle
    # The same resamples of whole runs at every step
    places = np.random.default_rng(seed).integers(0, len(runs), size=(RESAMPLES, len(runs)))
    resampled = np.stack([iqm(column[places], axis=1) for column in values.T], axis=-1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return middle, low, high


def _wins(x: FloatArray, y: FloatArray) -> FloatArray:
    differences = x[..., :, None] - y[..., None, :]
    return np.asarray(((differences > 0) + 0.5 * (differences == 0)).mean(axis=(-2, -1)))


def _scipy_interval(samples: Sequence[FloatArray], statistic: Callable[..., Any], seed: int) -> tuple[float, float]:
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        vectorized=True,
        axis=-1,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return result.confidence_interval.low, result.confidence_interval.high


def _rliable_interval(scores: Any, aggregate: Callable[..., Any], seed: int) -> tuple[float, float]:
    library = importlib.import_module("rliable.library")
    # rliable 1.2 ignores its argument random_state
    former = np.random.get_state()
    np.random.seed(seed)
    try:
        _, intervals = library.get_interval_estimates({"": scores}, aggregate, reps=RESAMPLES, confidence_interval_size=LEVEL)
    finally:
        np.random.set_state(former)
    low, high = np.asarray(intervals[""], dtype=np.float64).reshape(2)
    return float(low), float(high)
