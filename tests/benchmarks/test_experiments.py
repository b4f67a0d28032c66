"""Experiments are consistent, and inconsistent ones are refused with a remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.experiments import EXPERIMENTS, RPG, SAC, find_experiment
from benchmarks.run import check_seeds, locations, main, parse_seeds
from benchmarks.runs import RESULTS, WORK
from benchmarks.schema import Algorithm, Metric, Task
from benchmarks.settings import resolve_settings


def test_the_planned_experiments_are_there() -> None:
    assert {"bandit", "maze_50k", "maze", "pendulum", "halfcheetah"} <= set(EXPERIMENTS)
    maze = find_experiment("maze")
    assert [algorithm.label for algorithm in maze.algorithms][:4] == ["rpg", "rpg_categorical", "mbsac_r", "sac_rnd"]
    assert (maze.budget, maze.seeds, maze.metric.name) == (250_000, 5, "coverage")


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_settings_of_every_algorithm_can_be_resolved(name: str) -> None:
    if name == "halfcheetah":
        pytest.importorskip("mujoco")
    experiment = EXPERIMENTS[name]
    for algorithm in experiment.algorithms:
        if algorithm.learns:
            settings = resolve_settings(algorithm.base, experiment.task.env_id, algorithm.overrides)
            assert algorithm.overrides.items() <= settings.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithms": (RPG, SAC, Algorithm("rpg", "rpg"))}, "share a label"),
        ({"baseline": "td3"}, "baseline='td3'"),
        ({"budget": 0}, "budget"),
        ({"metrics": ()}, "metric"),
        ({"metrics": (Metric("return", 10), Metric("success", 10))}, "one evaluation"),
    ],
)
def test_inconsistent_experiments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EXPERIMENTS["pendulum"], **change)


def test_wrong_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'mazes' is unknown; there are .*maze"):
        find_experiment("mazes")
    with pytest.raises(ValueError, match=r"\['ppo'\].*'rpg', 'sac'"):
        EXPERIMENTS["pendulum"].select(["rpg", "ppo"])
    with pytest.raises(ValueError, match=r"name='speed'.*coverage"):
        Metric("speed", 10)
    with pytest.raises(ValueError, match=r"vec_env='gym'.*zoo"):
        Task("Pendulum-v1", "gym")
    with pytest.raises(ValueError, match="every=0"):
        Metric("return", 0)
    with pytest.raises(ValueError, match="final_share=2"):
        Metric("return", 1, final_share=2)


def test_selection_keeps_the_experiments_order() -> None:
    assert [algorithm.label for algorithm in EXPERIMENTS["maze"].select(["sac", "rpg"])] == ["rpg", "sac"]


def test_seeds_are_numbers_and_ranges() -> None:
    assert parse_seeds(["0", "3-5", "4"]) == [0, 3, 4, 5]
    for text in ("a", "-1", "3-", "1-b"):
        with pytest.raises(ValueError, match="seeds="):
            parse_seeds([text])


def test_seeds_of_results_and_of_tuning_never_mix() -> None:
    check_seeds([0, 999], tuning=False)
    check_seeds([1000, 1001], tuning=True)
    with pytest.raises(ValueError, match=r"seeds=1000.*--tuning"):
        check_seeds([0, 1000], tuning=False)
    with pytest.raises(ValueError, match="seeds=999"):
        check_seeds([999], tuning=True)


def test_only_the_experiment_itself_writes_where_git_looks() -> None:
    experiment = EXPERIMENTS["pendulum"]
    assert locations(experiment, tuning=False) == (WORK / "pendulum", RESULTS / "pendulum")
    for other, tuning in ((experiment, True), (experiment.with_budget(100), False)):
        work, results = locations(other, tuning)
        assert results.is_relative_to(work) and work.is_relative_to(WORK)
    assert experiment.with_budget(experiment.budget) is experiment


def test_the_command_explains_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "maze_50k: RPGMaze-v0, 50,000 steps, 3 seeds" in capsys.readouterr().out
    assert main(["no_such"]) == 2
    assert main(["pendulum", "--seeds", "1000"]) == 2
    assert main(["pendulum", "--jobs", "0"]) == 2
    assert main(["pendulum", "--gym-packages", "no_such_package"]) == 2
    errors = capsys.readouterr().err
    for expected in ("experiment='no_such'", "seeds=1000", "jobs=0", "gym_packages='no_such_package'"):
        assert expected in errors
