"""Plans the runs of an experiment, and finds those that are left to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Results
from benchmarks.runs import RunFolder, RunSpec, is_locked, run_folder
from benchmarks.schema import Experiment
from benchmarks.settings import resolve_settings
from sb3_rpg.checkpoints import latest_checkpoint

ON_CHANGE = ("error", "keep", "restart")


@dataclass(frozen=True)
class Plan:
    """
    What to run and where to put it.

    :param experiment: the experiment
    :param specs: its runs, in the order of their execution
    :param work: folder of logs, checkpoints and models
    :param results: folder of results
    :param command: the command that asked for it
    """

    experiment: Experiment
    specs: tuple[RunSpec, ...]
    work: Path
    results: Path
    command: str

    def folders(self) -> list[tuple[RunSpec, RunFolder]]:
        """
        :return: the runs with their files
        """
        return [(spec, run_folder(self.work, spec)) for spec in self.specs]


def plan_runs(experiment: Experiment, labels: list[str] | None, seeds: Sequence[int]) -> tuple[RunSpec, ...]:
    """
    :param experiment: the experiment
    :param labels: labels of the algorithms to run; None: all
    :param seeds: seeds
    :return: the runs, seed by seed, so that all algorithms can be compared early; without those that another experiment makes
    :raises ValueError: if a label, an algorithm or the environment is unknown
    """
    algorithms = [algorithm for algorithm in experiment.select(labels) if algorithm.label not in experiment.shared]
    env_id = experiment.task.env_id
    settings: dict[str, dict[str, Any]] = {
        algorithm.label: resolve_settings(algorithm.base, env_id, algorithm.overrides) if algorithm.learns else {}
        for algorithm in algorithms
    }
    return tuple(
        RunSpec(
            experiment=experiment.name,
            label=algorithm.label,
            base=algorithm.base,
            task=experiment.task,
            budget=experiment.budget,
            metrics=experiment.metrics,
            settings=settings[algorithm.label],
            seed=seed,
        )
        for seed in seeds
        for algorithm in algorithms
    )


def reconcile(plan: Plan, on_change: str, again: bool = False) -> list[tuple[RunSpec, RunFolder]]:
    """
    Find the runs that are left to do.

    :param plan: the plan
    :param on_change: what happens to a run that was made, or begun, with other settings than those of today: "error",
        "keep" it and finish it with the settings that it was begun with, "restart" it with those of today
    :param again: also discard what is finished; its published results stay until the new ones replace them, and without
        ``again`` a later call goes on with what is then left to do
    :return: the runs to execute
    :raises ValueError: if ``on_change`` is "error" and there is such a run, or if one to be discarded is being executed; then
        nothing is discarded
    """
    results = Results(plan.results)
    todo, changed, discarded, anew = [], [], [], []
    for spec, folder in plan.folders():
        published = results.fingerprint_of(spec.label, spec.seed)
        if published == spec.fingerprint() and not again and not folder.anew.is_file():
            continue  # whatever else lies here
        begun = folder.read_spec()[0] if has_begun(folder) else None
        # A run that was published elsewhere, and pulled, has no files here
        former = results.settings_of(published) if published and not begun else begun and begun.identity()
        if former and former != spec.identity():
            if on_change == "error":
                changed.append(f"  {spec.name}: {', '.join(_differences(former, spec.identity()))}")
                continue
            if on_change == "keep":
                if begun and not folder.is_finished():
                    todo.append((begun, folder))
                continue
            discarded.append((spec, folder))
        elif again and (folder.is_finished() or (published and not begun)):
            discarded.append((spec, folder))
            anew.append(folder)
        elif folder.is_finished():
            continue
        todo.append((spec, folder))
    if changed:
        raise ValueError(
            "these runs were made with other settings than those of today:\n"
            + "\n".join(changed)
            + "\nUse --on-change keep to leave them as they are (unfinished ones go on with their own settings), or "
            "--on-change restart to discard them and begin anew."
        )
    for spec, folder in discarded:
        if is_locked(folder.lock):
            # It would go on writing there
            raise ValueError(
                f"run={spec.name!r} is being executed by another command, so it cannot begin anew; stop that one first"
            )
    for _, folder in discarded:
        shutil.rmtree(folder.path, ignore_errors=True)
    for folder in anew:
        folder.path.mkdir(parents=True)
        folder.anew.touch()
    return todo


def has_begun(folder: RunFolder) -> bool:
    """
    :param folder: files of a run
    :return: whether there is anything that would be lost; a run that has not begun takes the settings of who starts it
    """
    return folder.spec.is_file() and (
        folder.is_finished() or latest_checkpoint(folder.checkpoints) is not None or is_locked(folder.lock)
    )


def _differences(former: dict[str, Any], current: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(former.keys() | current.keys()):
        old, new = former.get(key), current.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} {old!r} -> {new!r}"
