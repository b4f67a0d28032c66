"""Densities of the bandit's actions: counted, kept over interruptions, published and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks.densities import (
    BINS,
    STAGES,
    Densities,
    at_stages,
    count_actions,
    draw_density,
    load_densities,
    save_densities,
)
from benchmarks.experiments import Metric
from benchmarks.figures import save_densities as save_figure
from benchmarks.measures import BANDIT_ACTIONS, BanditMeasure
from benchmarks.report import report
from benchmarks.results import Results, write_curve
from benchmarks.runs import Row, write_json
from benchmarks.worker import FINISHED, STOPPED, execute
from tests.benchmarks.conftest import NEVER, TINY_SAC, bandit_experiment
from tests.benchmarks.test_worker import prepare, stop_at


def test_every_action_is_counted_in_its_bin() -> None:
    counts = count_actions([[-1.0, -0.99], [0.005, 1.0]])
    assert counts.shape == (BINS,) and counts.sum() == 4
    assert (counts[0], counts[BINS // 2], counts[-1]) == (2, 1, 1)


def test_densities_are_saved_in_order_and_integrate_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = {200: rng.uniform(-1, 1, 5000), 0: rng.normal(0.3, 0.05, 5000)}
    save_densities(tmp_path / "a" / "densities.npz", {step: count_actions(actions) for step, actions in samples.items()})
    densities = load_densities(tmp_path / "a" / "densities.npz")
    assert densities.steps.tolist() == [0, 200] and densities.values.shape == (2, BINS)
    np.testing.assert_allclose(densities.values.sum(axis=1) * 2 / BINS, 1.0)
    np.testing.assert_allclose(densities.values[1], 0.5, rtol=0.5)
    assert densities.values[0].max() == pytest.approx(1 / (0.05 * np.sqrt(2 * np.pi)), rel=0.1)
    assert (tmp_path / "a" / "densities.npz").stat().st_size < 2000


def test_stages_are_the_nearest_moments() -> None:
    steps = np.arange(0, 1001, 100)
    stages = at_stages(Densities(steps, np.tile(steps[:, None], BINS).astype(float)), 1000)
    assert len(stages) == len(STAGES) and [step for step, _ in stages] == [0, 100, 200, 500, 1000]
    assert all((density == step).all() for step, density in stages)


def test_the_measurement_counts_the_actions_that_its_mean_reward_is_of() -> None:
    class Model:
        """Plays one of two actions."""

        def predict(self, observation: np.ndarray, deterministic: bool = False, **_: Any) -> tuple[np.ndarray, None]:
            actions = np.where(np.arange(len(observation)) % 4 == 0, -0.61, 0.51)
            return actions[:, None].astype(np.float32), None

    measure, model = BanditMeasure(Metric("mean_reward", 10), 0), Model()
    assert measure.histogram is None
    values = measure(model, 0)  # type: ignore[arg-type]
    counts: Any = measure.histogram
    assert counts.sum() == BANDIT_ACTIONS and counts[[19, 75]].tolist() == [BANDIT_ACTIONS // 4, 3 * BANDIT_ACTIONS // 4]
    assert set(values) == {"mean_reward", "mean_reward_deterministic"}


def test_a_run_leaves_its_densities_interrupted_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = bandit_experiment(base="sac", overrides=TINY_SAC)
    whole, parts = (prepare(tmp_path / name, experiment, "sac") for name in ("whole", "parts"))
    assert execute(whole.path, NEVER) == FINISHED
    go_on = stop_at(monkeypatch, 120)
    assert execute(parts.path, NEVER) == STOPPED
    assert not parts.densities.exists()
    go_on()
    assert execute(parts.path, NEVER) == FINISHED
    for folder in (whole, parts):
        densities = load_densities(folder.densities)
        assert densities.steps.tolist() == [0, 100, 200]
    before, after = (load_densities(folder.densities).values for folder in (whole, parts))
    np.testing.assert_array_equal(before[:2], after[:2])
    results = Results(tmp_path / "results")
    results.publish([whole], tmp_path / "lock")
    assert (results.folder / "densities_sac_0.npz").read_bytes() == whole.densities.read_bytes()


def test_other_tasks_leave_none(tmp_path: Path) -> None:
    experiment = replace(bandit_experiment(), metrics=(Metric("return", every=100, episodes=2),))
    folder = prepare(tmp_path, experiment, "sac")
    assert execute(folder.path, NEVER) == FINISHED
    assert not folder.densities.exists()


def test_a_moment_shows_every_run() -> None:
    figure, ax = plt.subplots()
    draw_density(ax, [np.linspace(0, i + 1.0, BINS) for i in range(3)], 1, "C0")
    assert len(ax.patches) == 4  # two lines, and the median run's area with its outline
    heights = [patch.get_data().values.max() for patch in ax.patches]  # type: ignore[attr-defined]
    assert heights == [1.0] * 4 and ax.get_xlim() == (-1.0, 1.0)
    plt.close(figure)


def test_the_report_draws_them_where_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = bandit_experiment()
    rows = {seed: [Row("mean_reward", step, 0.1 * seed) for step in (0, 100, 200)] for seed in range(3)}
    write_curve(tmp_path / "sac.csv", rows)
    write_json(tmp_path / "manifest.json", {"experiment": "tiny", "runs": {}, "settings": {}, "environments": {}})
    image = tmp_path / "images" / "tiny_bandit_densities.png"
    assert image not in report(experiment, tmp_path, tmp_path / "images")
    rng = np.random.default_rng(0)
    for seed in range(3):
        counts = {step: count_actions(rng.normal(0.3, 0.3, 400)) for step in (0, 100, 200)}
        save_densities(tmp_path / f"densities_sac_{seed}.npz", counts)
    assert report(experiment, tmp_path, tmp_path / "images")[-1] == image
    before = image.read_bytes()
    assert save_figure(image, experiment, tmp_path, {}) is False
    report(experiment, tmp_path, tmp_path / "images")
    assert image.read_bytes() == before
