"""The comparison on an environment of the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import main, make_experiment, parse_overrides, random_starts
from benchmarks.engines import LocalEngine
from benchmarks.executor import SOME_FAILED
from benchmarks.grid import plan_runs
from benchmarks.results import read_curve
from benchmarks.runs import RunFolder
from benchmarks.schema import Metric
from benchmarks.worker import WorkerOptions


def test_overrides_are_yaml() -> None:
    texts = ["rpg.beta=0.02", "rpg.intrinsic_reward_kwargs={indices: [28]}", "sac.policy_kwargs=dict(net_arch=[64])"]
    assert parse_overrides(texts, ["rpg", "sac"]) == {
        "rpg": {"beta": 0.02, "intrinsic_reward_kwargs": {"indices": [28]}},
        "sac": {"policy_kwargs": "dict(net_arch=[64])"},
    }
    # No numbers to YAML 1.1, but to everybody else
    numbers = ["rpg.beta=1e-3", "rpg.gamma=9.5E-1", "sac.tau=.5e+0", "sac.name=e-3"]
    assert parse_overrides(numbers, ["rpg", "sac"]) == {
        "rpg": {"beta": 0.001, "gamma": 0.95},
        "sac": {"tau": 0.5, "name": "e-3"},
    }
    for text in ("rpg.beta", "beta=1", "td3.gamma=1", "rpg.=1", "rpg.x={"):
        with pytest.raises(ValueError, match="set="):
            parse_overrides([text], ["rpg", "sac"])


def test_the_second_algorithm_is_the_baseline() -> None:
    experiment = make_experiment("My/Env-v0", ["rpg", "sac", "td3"], 5, 100_000, None, 10, ["td3.gamma=0.9"])
    assert (experiment.name, experiment.baseline, experiment.seeds) == ("My_Env_v0_n100000", "sac", 5)
    assert experiment.metric == Metric("return", 5000, 10, 0.1)
    assert dict(experiment.algorithms[2].overrides) == {"gamma": 0.9}
    assert make_experiment("E-v0", ["rpg"], 1, 10, 3, 1, []).baseline == "rpg"


def test_errors_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env", "NoSuchEnv-v0", "-n", "100"]) == 2
    assert main(["--env", "Pendulum-v1", "-n", "100", "--algos", "rgp"]) == 2
    assert main(["--env", "Pendulum-v1", "-n", "0"]) == 2
    errors = capsys.readouterr().err
    for expected in ("env='NoSuchEnv-v0'", "algo='rgp'", "budget"):
        assert expected in errors


def test_who_acts_at_random_for_a_good_part_of_the_budget_is_named() -> None:
    experiment = make_experiment("Pendulum-v1", ["rpg", "sac"], 2, 1000, None, 2, ["sac.learning_starts=100"])
    specs = plan_runs(experiment, None, (0, 1))
    assert random_starts(specs)[-1] == (
        "note: sac learns nothing for the first 100 of 1,000 steps; --set sac.learning_starts=10 changes that"
    )
    assert not random_starts([replace(spec, budget=100_000) for spec in specs])


@pytest.mark.slow
def test_a_seed_that_fails_does_not_withhold_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--env", "Pendulum-v1", "--algos", "sac", "--seeds", "2", "-n", "200", "--folder", str(tmp_path)]
    arguments += ["--set", "sac.policy_kwargs=dict(net_arch=[8])", "--eval-episodes", "1"]
    start = LocalEngine.start

    def failing(self: LocalEngine, folder: RunFolder, options: WorkerOptions) -> Any:
        if folder.read_spec()[0].seed == 1:
            options = WorkerOptions(options.checkpoint_every, "no such device")
        return start(self, folder, options)

    monkeypatch.setattr(LocalEngine, "start", failing)
    assert main(arguments) == SOME_FAILED
    assert list(read_curve(tmp_path / "results" / "sac.csv")) == [0] and (tmp_path / "results" / "table.md").is_file()


@pytest.mark.slow
def test_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = "policy_kwargs=dict(net_arch=[8], state_dim=8, hidden_dim=8)"
    arguments = ["--env", "Pendulum-v1", "--algos", "rpg", "sac", "--seeds", "2", "-n", "400", "--folder", str(tmp_path)]
    arguments += ["--set", f"rpg.{tiny}", "rpg.learning_starts=100", "--eval-episodes", "2"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "| rpg |" in output and "| sac |" in output
    for name in ("Pendulum_v1_n400.png", "results/table.md", "results/rpg.csv", "results/sac.csv", "results/manifest.json"):
        assert (tmp_path / name).is_file()
    # Again: nothing left to run, only the report is made anew
    assert main(arguments) == 0
    assert "0 of 4 runs to do" in capsys.readouterr().out
