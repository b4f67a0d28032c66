"""Runs that are over in a second, with networks as small as they can be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.grid import Plan, plan_runs
from benchmarks.runs import Row, RunFolder, RunSpec, write_json
from benchmarks.schema import Algorithm, Experiment, Metric, Task
from benchmarks.worker import WorkerOptions

posix = pytest.mark.skipif(os.name == "nt", reason="signals and locks of POSIX")
TINY_RPG: dict[str, Any] = {
    "policy_kwargs": "dict(net_arch=[8], state_dim=8, hidden_dim=8)",
    "batch_size": 4,
    "learning_starts": 50,
    "latent_dim": 3,
    "intrinsic_batch_size": 4,
    "precision": "fp32",
}
TINY_SAC: dict[str, Any] = {"policy_kwargs": "dict(net_arch=[8])", "batch_size": 4, "learning_starts": 50}
#: a checkpoint between any two rollouts
ALWAYS = WorkerOptions(checkpoint_every=0.0, device="cpu")
NEVER = WorkerOptions(checkpoint_every=1e9, device="cpu")


def maze_experiment(budget: int = 300, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """
    :param budget: environment steps
    :param overrides: of RPG's settings
    """
    return Experiment(
        name="tiny_maze",
        title="Tiny maze",
        task=Task("RPGMaze-v0", "maze"),
        budget=budget,
        metrics=(Metric("coverage", every=100),),
        algorithms=(Algorithm("rpg", "rpg", {**TINY_RPG, **(overrides or {})}), Algorithm("random_uniform", "random_uniform")),
        baseline="random_uniform",
        seeds=2,
    )


def bandit_experiment(budget: int = 200, base: str = "sac", overrides: Mapping[str, Any] | None = None) -> Experiment:
    """
    :param budget: environment steps
    :param base: RL Zoo's name of the only algorithm
    :param overrides: its settings
    """
    return Experiment(
        name="tiny_bandit",
        title="Tiny bandit",
        task=Task("RPGBandit-v0"),
        budget=budget,
        metrics=(Metric("mean_reward", every=100), Metric("return", every=100, episodes=2)),
        algorithms=(Algorithm(base, base, TINY_SAC if overrides is None else overrides),),
        baseline=base,
        seeds=1,
    )


def make_plan(tmp_path: Path, experiment: Experiment, seeds: tuple[int, ...] = (0,), labels: list[str] | None = None) -> Plan:
    """
    :param tmp_path: folder for everything
    :param experiment: the experiment
    :param seeds: seeds
    :param labels: labels of the algorithms; None: all
    """
    specs = plan_runs(experiment, labels, seeds)
    return Plan(experiment, specs, tmp_path / "work", tmp_path / "results", "python -m benchmarks.run tiny")


def write_finished(folder: RunFolder, spec: RunSpec, rows: list[Row], **record: Any) -> None:
    """
    Leave the files of a finished run, without running it.

    :param folder: where
    :param spec: the run
    :param rows: its measurements
    :param record: replaces what the manifest will say
    """
    folder.write_spec(spec, "python -m benchmarks.run tiny")
    folder.write_rows(rows)
    content = {"fingerprint": spec.fingerprint(), "command": "c", "hours": 0.5, "environment": {"python": "3.11"}, **record}
    write_json(folder.finished, content)


@pytest.fixture(scope="session", autouse=True)
def _zoo() -> None:
    """RL Zoo registers its environments at its first import, with warnings that are none of ours."""
    from benchmarks.settings import load_zoo

    load_zoo()
