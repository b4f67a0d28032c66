"""Experiments are consistent, and inconsistent ones are refused with a remedy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import gymnasium as gym
import pytest

from benchmarks.experiments import EXPERIMENTS, RPG, SAC, find_experiment
from benchmarks.measures import count_parameters
from benchmarks.run import check_seeds, locations, main, parse_seeds
from benchmarks.runs import RESULTS, WORK
from benchmarks.schema import Algorithm, Experiment, Group, Metric, Task
from benchmarks.settings import Workbench, resolve_settings
from sb3_rpg.intrinsic import INTRINSIC_REWARDS


def test_the_planned_experiments_are_there() -> None:
    assert {"bandit", "maze_100k", "maze", "pendulum", "halfcheetah"} <= set(EXPERIMENTS)
    assert {"maze_sparse", "maze_updates", "push", "cost"} <= set(EXPERIMENTS)
    assert {f"{task}_100k" for task in ("halfcheetah", "hopper", "walker2d", "ant")} <= set(EXPERIMENTS)
    maze = find_experiment("maze")
    assert [algorithm.label for algorithm in maze.algorithms][:4] == ["rpg", "rpg_categorical", "mbsac_r", "sac_rnd"]
    assert (maze.budget, maze.seeds, maze.metric.name) == (250_000, 5, "coverage")


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_settings_of_every_algorithm_can_be_resolved(name: str) -> None:
    experiment = EXPERIMENTS[name]
    if experiment.task.env_id.endswith("-v5"):
        pytest.importorskip("mujoco")
    for algorithm in experiment.algorithms:
        if algorithm.learns:
            settings = resolve_settings(algorithm.base, experiment.task.env_id, algorithm.overrides)
            assert algorithm.overrides.items() <= settings.items()


#: what differs in its settings from all before; algorithms that several experiments have in common are there once
LEARNERS = {
    (experiment.task.env_id, algorithm.base, repr(algorithm.overrides)): pytest.param(
        experiment, algorithm, id=f"{experiment.name}-{algorithm.label}"
    )
    for experiment in EXPERIMENTS.values()
    for algorithm in experiment.algorithms
    if algorithm.learns
}


@pytest.mark.parametrize(("experiment", "algorithm"), LEARNERS.values())
def test_every_algorithm_can_be_constructed(experiment: Experiment, algorithm: Algorithm) -> None:
    task, bonus = experiment.task, algorithm.overrides.get("intrinsic_reward", "none")
    if task.env_id.endswith("-v5"):
        pytest.importorskip("mujoco")
    assert bonus in {*INTRINSIC_REWARDS, "none"}
    # At a small budget, so that the buffer is small
    settings = resolve_settings(algorithm.base, task.env_id, algorithm.overrides)
    bench = Workbench(algorithm.base, task, settings, budget=1000, seed=1000, device="cpu")
    env = bench.make_env()
    model = bench.make_model(env)
    assert isinstance(model, bench.model_class())
    assert model.observation_space.shape == gym.spec(task.env_id).make().observation_space.shape
    assert count_parameters(model) > 0
    for name in {"latent", "latent_dim", "beta", "horizon", "gradient_steps", "learning_starts"} & set(algorithm.overrides):
        assert getattr(model, name) == algorithm.overrides[name]
    env.close()


def test_ablations_differ_from_the_default_in_one_group_each() -> None:
    experiment = EXPERIMENTS["maze_100k"]
    labels = [algorithm.label for algorithm in experiment.algorithms]
    assert {group.name for group in experiment.groups} == {
        *("baselines", "speed", "latent", "latent_dim", "beta", "horizon", "replay", "rnd", "bonus")
    }
    assert all(group.labels[0] == "rpg" for group in experiment.groups)  # trained once, shown in each
    ablations = [group for group in experiment.groups if group.name != "baselines"]
    baselines = {"sac_rnd", "random_uniform", "random_direction"}
    once = [*set(labels) - {"rpg", *baselines}, "no_baseline"]  # which is also what speed is compared with
    assert sorted(label for group in ablations for label in group.labels[1:]) == sorted(once)
    models = [algorithm for algorithm in experiment.algorithms if algorithm.base == "rpg"]
    settings = [resolve_settings("rpg", "RPGMaze-v0", algorithm.overrides) for algorithm in models]
    assert all(a != b for a, b in itertools.combinations(settings, 2))
    assert experiment.labels_of(["beta", "horizon"])[:2] == ["rpg", "beta_0"]
    assert experiment.labels_of(["beta", "horizon"]).count("rpg") == 1
    with pytest.raises(ValueError, match=r"groups=\['width'\] are not in .*'beta'"):
        experiment.labels_of(["width"])


def test_shared_runs_are_the_first_steps_of_longer_ones() -> None:
    sharing = [experiment for experiment in EXPERIMENTS.values() if experiment.shared]
    assert {experiment.name for experiment in sharing} == {"maze_100k", "maze_updates"}
    for experiment in sharing:
        for label, name in experiment.shared.items():
            longer = EXPERIMENTS[name]
            (algorithm,) = experiment.select([label])
            assert [algorithm] == longer.select([label]) and label not in longer.shared
            assert longer.has_maps and not experiment.has_maps
            assert longer.task == experiment.task and longer.metric == experiment.metric
            assert longer.budget > experiment.budget and longer.seeds >= experiment.seeds
            if algorithm.learns:  # nothing depends on how long training will be
                settings = resolve_settings(algorithm.base, experiment.task.env_id, algorithm.overrides)
                assert not [name for name, value in settings.items() if isinstance(value, str) and value.startswith("lin_")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shared": {"td3": "maze"}}, r"shared=\['td3'\] of 'pendulum'"),
        ({"algorithms": (RPG, SAC, Algorithm("rpg", "rpg"))}, "share a label"),
        ({"baseline": "td3"}, "baseline='td3'"),
        ({"budget": 0}, "budget"),
        ({"metrics": ()}, "metric"),
        ({"groups": (Group("a", "A", ("rpg", "td3")),)}, r"group 'a' of 'pendulum' names \['td3'\]"),
        ({"metrics": (Metric("return", 10), Metric("success", 10))}, "one evaluation"),
    ],
)
def test_inconsistent_experiments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(EXPERIMENTS["pendulum"], **change)


def test_wrong_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'mazes' is unknown; there are .*maze"):
        find_experiment("mazes")
    with pytest.raises(ValueError, match=r"\['ppo'\].*'rpg', 'rpg_precise', 'sac'"):
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
    for text in ("a", "-1", "3-", "1-b", "5-3"):
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
    assert "maze_100k: RPGMaze-v0, 100,000 steps, 3 seeds" in capsys.readouterr().out
    assert main(["maze_updates", "--algos", "rpg", "sac_rnd"]) == 0
    assert "maze_updates: read from the experiments that train them: rpg (maze), sac_rnd (maze)" in capsys.readouterr().out
    assert main(["no_such"]) == 2
    assert main(["pendulum", "--seeds", "1000"]) == 2
    assert main(["pendulum", "--jobs", "0"]) == 2
    assert main(["pendulum", "--gym-packages", "no_such_package"]) == 2
    errors = capsys.readouterr().err
    for expected in ("experiment='no_such'", "seeds=1000", "jobs=0", "gym_packages='no_such_package'"):
        assert expected in errors
