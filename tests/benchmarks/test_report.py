"""Tables and figures of made-up results with known statistics."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from benchmarks.figures import GREYS, PALETTE, Curve, colors_of, draw_curves, load_curves, median_seed
from benchmarks.report import final_scores, main, make_table, report
from benchmarks.results import Results, write_curve
from benchmarks.runs import Row, write_json
from benchmarks.schema import Algorithm, Experiment, Group, Metric
from benchmarks.visits import load_visits
from tests.benchmarks.conftest import maze_experiment

STEPS = (0, 100, 200, 300)


def write(folder: Path, label: str, finals: list[float]) -> None:
    """Straight lines from 0 to the final values."""
    runs = {seed: [Row("coverage", step, final * step / STEPS[-1]) for step in STEPS] for seed, final in enumerate(finals)}
    write_curve(folder / f"{label}.csv", runs)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    algorithms = (*maze_experiment().algorithms, Algorithm("sac", "sac"))
    write(tmp_path, "rpg", [0.9, 0.5, 0.7, 0.7, 0.7])
    write(tmp_path, "sac", [0.6, 0.4])
    write(tmp_path, "random_uniform", [0.2, 0.2])
    runs = {"rpg": {"0": {"hours": 1.0}, "1": {"hours": 2.0}}}
    write_json(tmp_path / "manifest.json", {"experiment": "tiny", "runs": runs, "settings": {}, "environments": {}})
    return replace(maze_experiment(), algorithms=algorithms, baseline="sac")


def test_table(tmp_path: Path, experiment: Experiment) -> None:
    table = make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))
    header, _, rpg, random, sac, *_ = table.splitlines()
    assert header == "| algorithm | coverage | 95 % interval | P(better than sac) | seeds | hours a run |"
    # 9 of 10 pairs: only 0.5 against 0.6 is lost
    assert re.fullmatch(r"\| rpg \| 0\.70 \| 0\.5\d to 0\.8\d \| 0\.90 \(0\.\d\d to 1\.00\) \| 5 \| 1\.50 \|", rpg)
    assert random == "| random_uniform | 0.20 | 0.20 to 0.20 | 0.00 (0.00 to 0.00) | 2 | - |"
    assert sac == "| sac | 0.50 | 0.40 to 0.60 | - | 2 | - |"
    assert "RPGMaze-v0, at the end of 300 environment steps" in table


def test_the_final_value_can_be_a_mean(tmp_path: Path, experiment: Experiment) -> None:
    last_half = replace(experiment, metrics=(Metric("coverage", 100, final_share=0.5),))
    scores = final_scores(last_half, load_curves(tmp_path, last_half)["sac"])
    assert scores.values == pytest.approx(np.array([[0.5], [0.4 * 5 / 6]]))
    assert (tuple(scores.runs), tuple(scores.tasks)) == ((0, 1), ("RPGMaze-v0",))


def test_values_on_the_way(tmp_path: Path, experiment: Experiment) -> None:
    with pytest.raises(ValueError, match=r"milestones=\(301,\) of 'tiny_maze' must lie between 0 and its budget, 300"):
        replace(experiment, milestones=(301,))
    passing = replace(experiment, milestones=(150, 300))  # the last measurement up to step 150 is that at 100
    table = make_table(passing, load_curves(tmp_path, passing), Results(tmp_path))
    assert "| algorithm | coverage at 150 | coverage at 300 |" in table
    assert "| sac | 0.17 (0.13 to 0.20) | 0.50 (0.40 to 0.60) |" in table
    assert passing.with_budget(200).milestones == (150,)


def test_missing_algorithms_are_left_out_and_missing_results_explained(tmp_path: Path, experiment: Experiment) -> None:
    (tmp_path / "sac.csv").unlink()
    curves = load_curves(tmp_path, experiment)
    assert list(curves) == ["rpg", "random_uniform"]
    assert "| rpg | 0.70 |" in make_table(experiment, curves, Results(tmp_path))
    with pytest.raises(ValueError, match=r"holds no results of 'tiny_maze'"):
        load_curves(tmp_path / "nowhere", experiment)


def test_what_ends_before_the_budget_and_what_diverged_is_named(tmp_path: Path, experiment: Experiment) -> None:
    warning = "**sac ends after 200 steps**. Complete it"
    assert warning not in make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))
    rows = [Row("coverage", step, 0.5) for step in STEPS[:-1]]
    write_curve(tmp_path / "sac.csv", {0: rows, 1: rows})
    assert warning in make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))
    write_curve(tmp_path / "sac.csv", {0: rows, 1: [*rows[:-1], Row("coverage", 200, float("nan"))]})
    with pytest.raises(ValueError, match=r"sac: values must be finite, those of runs \[1\]"):
        make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))


def test_runs_of_different_length_share_their_common_steps(tmp_path: Path, experiment: Experiment) -> None:
    rows = [Row("coverage", step, 0.5) for step in (0, 100, 300)]
    write_curve(tmp_path / "sac.csv", {0: rows, 1: rows[:1] + rows[2:]})
    assert load_curves(tmp_path, experiment)["sac"].steps.tolist() == [0, 300]


def test_curves(tmp_path: Path, experiment: Experiment) -> None:
    figure, ax = plt.subplots()
    draw_curves(ax, experiment, load_curves(tmp_path, experiment))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["rpg (n = 5)", "random_uniform (n = 2)", "sac (n = 2)"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("environment steps", "coverage (share of 100 cells)")
    lines = ax.get_lines()
    assert [line.get_linestyle() for line in lines if line.get_label() == "random_uniform (n = 2)"] == ["--"]
    assert len(ax.collections) == 1  # an interval for five seeds
    thin = [line for line in lines if line.get_linewidth() < 1]
    assert len(thin) == 2  # two seeds are shown themselves
    assert thin[0].get_color() != lines[0].get_color()
    plt.close(figure)


def test_groups_have_panels_and_tables(tmp_path: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    groups = (
        Group("a", "Title A", ("rpg", "sac")),
        Group("b", "Title B", ("rpg", "random_uniform")),
        Group("c", "C", ("rpg",)),
    )
    grouped = replace(experiment, groups=groups)
    table = make_table(grouped, load_curves(tmp_path, grouped), Results(tmp_path))
    # A group with nothing to compare is left out
    assert re.findall(r"^### (.*)$", table, re.MULTILINE) == ["Title A", "Title B"]
    first, second = table.split("### ")[1:]
    assert "| sac |" in first and "| sac |" not in second and "| rpg | 0.70 |" in first and "| rpg | 0.70 |" in second
    figure, ax = plt.subplots()
    draw_curves(ax, grouped, load_curves(tmp_path, grouped), groups[1].labels)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["rpg (n = 5)", "random_uniform (n = 2)"]
    plt.close(figure)
    assert all(path.is_file() for path in report(grouped, tmp_path, tmp_path / "images"))
    assert "### Title A" in capsys.readouterr().out


def test_shared_curves_are_read_where_they_were_trained_up_to_the_budget(tmp_path: Path, experiment: Experiment) -> None:
    short = replace(experiment, name="short", budget=200, shared={"rpg": "long"})
    # As in the repository, and as in the folder of work, where tuning is
    for below in ("", "results"):
        write(tmp_path / "long" / below, "rpg", [0.9, 0.3])
        write(tmp_path / "short" / below, "sac", [0.3])
        curves = load_curves(tmp_path / "short" / below, short)
        assert list(curves) == ["rpg", "sac"]
        assert curves["rpg"].steps.tolist() == [0, 100, 200]
        assert curves["rpg"].values[:, -1] == pytest.approx([0.6, 0.2])


def test_seeds_of_different_settings_are_told(tmp_path: Path, experiment: Experiment) -> None:
    runs = {"rpg": {str(seed): {"hours": 1.0, "settings": "new" if seed < 2 else "old"} for seed in range(5)}}
    runs["sac"] = {str(seed): {"hours": 1.0, "settings": "any"} for seed in range(2)}
    write_json(tmp_path / "manifest.json", {"experiment": "tiny", "runs": runs, "settings": {}, "environments": {}})
    table = make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))
    assert re.findall(r"\*\*(\w+) mixes settings\*\*: seeds (.*)\. C", table) == [("rpg", "0, 1; 2, 3, 4")]
    # Also where they were trained by another experiment
    elsewhere = tmp_path / "long"
    elsewhere.mkdir()
    (tmp_path / "manifest.json").rename(elsewhere / "manifest.json")
    short = replace(experiment, name="short", shared={"rpg": "long"})
    table = make_table(short, load_curves(tmp_path, experiment), Results(tmp_path / "short"))
    assert "**rpg mixes settings**" in table


def test_a_label_has_one_colour_in_all_panels(experiment: Experiment) -> None:
    groups = (
        Group("a", "A", ("rpg", "sac", "random_uniform")),
        Group("b", "B", ("td3", "rpg")),
        Group("c", "C", ("td3", "x", "y")),
    )
    more = tuple(Algorithm(label, "rpg") for label in ("x", "y", "td3"))
    colors = colors_of(replace(experiment, algorithms=(*experiment.algorithms, *more), groups=groups))
    assert colors["rpg"] == PALETTE[0] and colors["random_uniform"] == GREYS[0]
    for group in groups:
        assert len({colors[label] for label in group.labels}) == len(group.labels)


def test_curves_over_time(tmp_path: Path, experiment: Experiment) -> None:
    with pytest.raises(ValueError, match=r"holds no results of 'tiny_maze' with 'seconds' beside them"):
        load_curves(tmp_path, experiment, "time")
    # Seed 1 takes twice the time of seed 0; clocks and metric need not share their steps
    runs = {
        seed: [Row("coverage", step, step / 300) for step in STEPS]
        + [Row("seconds", step, 12.0 * (seed + 1) * step) for step in (0, 300)]
        for seed in range(2)
    }
    write_curve(tmp_path / "sac.csv", runs)
    curves = load_curves(tmp_path, experiment, "time")
    assert list(curves) == ["sac"]
    hours, values = curves["sac"].steps, curves["sac"].values
    assert (hours[0], hours[-1]) == (0.0, 1.0)  # as long as both ran: seed 0's 3600 s
    np.testing.assert_allclose(values, [hours, hours / 2], atol=1e-5)  # files keep six digits
    (path,) = report(experiment, tmp_path, tmp_path / "images", "time")
    assert path.name == "tiny_maze_time.png" and path.stat().st_size > 1000
    figure, ax = plt.subplots()
    draw_curves(ax, experiment, curves, x="time")
    assert ax.get_xlabel() == "hours of training"
    plt.close(figure)


def test_costs(tmp_path: Path, experiment: Experiment) -> None:
    clocks = {"hours": 1.0, "training_hours": 0.1, "training_cpu_hours": 0.05}
    run = {**clocks, "peak_memory_mb": 1234, "parameters": 1000, "environment": "environment_1"}
    slow = {**run, "training_hours": 9.0, "environment": "environment_2"}
    runs = {"rpg": {"0": run, "1": {**run, "training_hours": 0.15}, "2": slow}, "sac": {"0": {"hours": 1.0}}}
    environments = {"environment_1": {"processor": "A"}, "environment_2": {"processor": "B"}}
    write_json(tmp_path / "manifest.json", {"experiment": "tiny", "runs": runs, "settings": {}, "environments": environments})
    table = make_table(experiment, load_curves(tmp_path, experiment), Results(tmp_path))
    assert "| algorithm | seconds for 1,000 steps | of the processor | peak memory | parameters | seeds | machine |" in table
    # 0.15 hours for 300 steps, whatever one busy machine took; runs from before these were recorded have no line
    assert "| rpg | 1800.00 | 600.00 | 1,234 MB | 1,000 | 3 | A, B |" in table
    assert len(re.findall(r"^\| sac \|", table, re.MULTILINE)) == 1


def test_report_writes_table_and_figures(tmp_path: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = np.repeat(np.arange(4), 5)
    for label in ("rpg", "sac"):
        for seed in range(5):
            latents: dict[str, Any] = {"latents": np.eye(4, dtype=np.float16)} if label == "rpg" else {}
            arrays: dict[str, Any] = {
                "positions": np.zeros((20, 2), np.float16),
                "episodes": episodes,
                "steps": np.arange(4),
                **latents,
            }
            np.savez_compressed(tmp_path / f"visits_{label}_{seed}.npz", **arrays)
    images = tmp_path / "images"
    written = report(experiment, tmp_path, images)
    pictures = [images / f"tiny_maze{suffix}.png" for suffix in ("", "_visits", "_trajectories")]
    assert written == [tmp_path / "table.md", *pictures]
    assert capsys.readouterr().out.strip() == written[0].read_text().strip()
    before = [path.read_bytes() for path in written]
    assert all(before)
    # Drawing again changes nothing, so that git sees no difference
    assert [path.read_bytes() for path in report(experiment, tmp_path, images)] == before


def test_a_table_against_another_baseline_writes_nothing(
    tmp_path: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.find_experiment", lambda name: experiment)
    monkeypatch.setattr("benchmarks.report.locations", lambda *_: (tmp_path, tmp_path))
    before = sorted(tmp_path.iterdir())
    assert main(["tiny", "--baseline", "rpg"]) == 0
    assert "| P(better than rpg) |" in capsys.readouterr().out and sorted(tmp_path.iterdir()) == before
    assert main(["tiny", "--baseline", "td3"]) == 2
    assert "baseline='td3' of 'tiny_maze' is none of its algorithms" in capsys.readouterr().err


def test_what_is_measured_at_the_end_alone_has_no_curve(tmp_path: Path, experiment: Experiment) -> None:
    at_the_end = replace(experiment, metrics=(Metric("coverage", experiment.budget),))
    assert report(at_the_end, tmp_path, tmp_path / "images") == [tmp_path / "table.md"]


def test_stages_are_told_apart_and_short_episodes_rest_at_their_end(tmp_path: Path) -> None:
    positions, episodes = np.arange(14.0).reshape(7, 2), np.array([0, 0, 0, 1, 2, 2, 2])
    np.savez(tmp_path / "visits.npz", positions=positions, episodes=episodes, steps=np.array([0, 50, 100]))
    visits = load_visits(tmp_path / "visits.npz")
    assert visits.latents is None
    stages = [visits.episodes_between(first, last).tolist() for first, last in ((0, 50), (50, 101), (101, 150))]
    assert stages == [[0], [1, 2], []]
    np.testing.assert_array_equal(visits.trajectories([1, 2]), [[[6, 7], [6, 7], [6, 7]], [[8, 9], [10, 11], [12, 13]]])
    assert visits.trajectories([]).shape == (0, 0, 2)


def test_the_run_that_is_drawn_is_neither_the_best_nor_the_worst() -> None:
    def seed_of(*finals: float, among: tuple[int, ...] = (10, 11, 12, 13)) -> int:
        values = np.array([[0.0, final] for final in finals])
        return median_seed(Curve("rpg", tuple(range(10, 10 + len(finals))), np.array([0.0, 1.0]), values), among)

    assert seed_of(0.3, 0.5, 0.9) == 11 and seed_of(0.9, 0.3, 0.5) == 12 and seed_of(0.9, 0.3, 0.5, 0.6) == 12
    assert seed_of(0.7) == 10 and seed_of(0.3, 0.5, 0.9, among=(12,)) == 12


def test_the_command_explains_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no_such"]) == 2
    assert main(["pendulum", "-n", "123456789"]) == 2
    errors = capsys.readouterr().err
    assert "experiment='no_such'" in errors and "run the experiment first" in errors
