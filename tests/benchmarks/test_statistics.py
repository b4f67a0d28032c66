"""Statistics against values known in advance."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import statistics
from benchmarks.statistics import Scores, interval_of_curve, interval_of_iqm, iqm, probability_of_improvement


@pytest.fixture(params=["scipy", "rliable"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways must agree; rliable's only where it is installed."""
    if request.param == "rliable":
        pytest.importorskip("rliable")
    else:
        monkeypatch.setattr(statistics, "has_rliable", lambda: False)


def scores(values: Any, tasks: tuple[str, ...] = ("task",)) -> Scores:
    array = np.asarray(values, dtype=np.float64).reshape(-1, len(tasks))
    return Scores(array, tuple(range(len(array))), tasks)


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm(np.array([1000.0, 1.0, 2.0, -1000.0])) == 1.5
    assert iqm(np.array([1.0, 2.0, 6.0])) == 3.0  # too few to trim


def test_swapped_axes_are_refused() -> None:
    values = np.zeros((5, 2))
    Scores(values, range(5), ("a", "b"))
    with pytest.raises(ValueError, match=r"\(runs, tasks\) = \(5, 2\), got \(2, 5\); transpose"):
        Scores(values.T, range(5), ("a", "b"))
    with pytest.raises(ValueError, match="transpose"):
        interval_of_curve(np.zeros((50, 5)), range(5))
    with pytest.raises(ValueError, match=r"finite, those of runs \[3\] are not"):
        Scores(np.array([[1.0], [np.nan]]), (2, 3), ("a",))


@pytest.mark.usefixtures("_library")
def test_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(5.0, 1.0, size=400)
    estimate = interval_of_iqm(scores(values))
    assert estimate.value == pytest.approx(float(iqm(values)))
    # The standard error of a Gaussian's interquartile mean is 1.09 / sqrt(n)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 1.09 / 20, rel=0.15)
    assert estimate.low < estimate.value < estimate.high
    assert interval_of_iqm(scores(values)) == estimate  # seeded


@pytest.mark.usefixtures("_library")
def test_interval_of_equal_runs_has_no_width() -> None:
    assert interval_of_iqm(scores([0.9] * 5)) == pytest.approx((0.9, 0.9, 0.9))


@pytest.mark.usefixtures("_library")
def test_resampling_is_stratified_by_task() -> None:
    # Every task's runs agree, so whatever is drawn within a task, the mean stays
    estimate = interval_of_iqm(scores([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], ("a", "b")))
    assert estimate == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize(
    ("x", "y", "value"), [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5), ([0, 2], [1, 1], 0.5)]
)
def test_probability_of_improvement(x: list[float], y: list[float], value: float) -> None:
    estimate = probability_of_improvement(scores(x), scores(y))
    assert estimate.value == value
    assert 0 <= estimate.low <= value <= estimate.high <= 1


def test_probability_is_the_mean_over_tasks() -> None:
    x, y = scores([[2, 0], [3, 0]], ("a", "b")), scores([[0, 1], [1, 1]], ("a", "b"))
    assert probability_of_improvement(x, y).value == 0.5
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement(x, scores([1, 2]))


@pytest.mark.parametrize("function", [interval_of_iqm, lambda x: probability_of_improvement(x, x)])
def test_one_run_has_no_interval(function: Callable[[Scores], Any]) -> None:
    estimate = function(scores([3.0]))
    assert np.isnan([estimate.low, estimate.high]).all()


def test_curve_intervals_agree_with_those_of_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "has_rliable", lambda: False)
    values = np.random.default_rng(1).normal(size=(10, 3))
    middle, low, high = interval_of_curve(values, range(10))
    for step in range(3):
        estimate = interval_of_iqm(scores(values[:, step]))
        assert (middle[step], low[step], high[step]) == pytest.approx(estimate, abs=0.06)


def test_rliable_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bootstrap gets all runs, and its draws from numpy's global generator leave no trace."""

    def get_interval_estimates(given: Any, aggregate: Any, reps: int, confidence_interval_size: float) -> Any:
        assert (reps, confidence_interval_size) == (statistics.RESAMPLES, statistics.LEVEL)
        np.random.uniform(size=3)
        return None, {"": np.array([[np.sum(given[""])], aggregate(given[""])])}

    library = SimpleNamespace(get_interval_estimates=get_interval_estimates)
    monkeypatch.setattr(statistics, "has_rliable", lambda: True)
    monkeypatch.setattr(statistics.importlib, "import_module", {"rliable.library": library}.__getitem__)
    np.random.seed(5)
    expected = np.random.uniform()
    np.random.seed(5)
    assert interval_of_iqm(scores(np.array([1.0, 2.0, 3.0, 10.0]))) == (2.5, 16.0, 2.5)
    assert np.random.uniform() == expected


def test_each_task_is_resampled_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "has_rliable", lambda: False)
    x = np.random.default_rng(0).normal(size=(40, 1))
    # Runs that are good at one task are as bad at the other: drawn together, they would always cancel out
    opposite, same = (interval_of_iqm(scores(np.hstack([x, sign * x]), ("a", "b"))) for sign in (-1, 1))
    assert opposite.high - opposite.low == pytest.approx(same.high - same.low, rel=0.2)
