"""A run, its identity, and the files that it leaves in the work folder."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bootstrap import ROOT
from benchmarks.schema import Metric, Task

#: what is not for git: logs, checkpoints, models, results of tuning
WORK = ROOT / "benchmarks" / "work"
#: what is for git: one folder an experiment
RESULTS = ROOT / "benchmarks" / "results"


#: rows beside the measurements: seconds of training so far, by the clock on the wall and of the processor
CLOCKS = ("seconds", "cpu_seconds")


class Row(NamedTuple):
    """One measurement of a run."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True)
class RunSpec:
    """
    Everything that decides what a run does.

    :param experiment: name of the experiment
    :param label: label of the algorithm
    :param base: RL Zoo's name of the algorithm, or of a random baseline
    :param task: the environment
    :param budget: environment steps
    :param metrics: what is measured
    :param settings: hyperparameters as a hyperparameter file states them; fixed when the runs are planned, so that all
        seeds have the same ones, whatever happens to the file in the meantime
    :param seed: seed
    """

    experiment: str
    label: str
    base: str
    task: Task
    budget: int
    metrics: tuple[Metric, ...]
    settings: dict[str, Any]
    seed: int

    def identity(self) -> dict[str, Any]:
        """
        :return: what all seeds of a curve must agree on
        """
        return {
            "algorithm": self.base,
            "env_id": self.task.env_id,
            "n_timesteps": self.budget,
            "metrics": {metric.name: {"every": metric.every, "episodes": metric.episodes} for metric in self.metrics},
            "settings": self.settings,
        }

    def fingerprint(self) -> str:
        """
        :return: a short text that is the same for all seeds of a curve and for nothing else
        """
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """How messages call the run."""
        return f"{self.label}/seed {self.seed}"


class RunFolder:
    """
    The files of one run.

    :param path: the folder
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "run.json"
        self.rows = path / "rows.csv"
        self.progress = path / "progress.json"
        self.log = path / "log.txt"
        #: what only a finished run has, with all that the manifest says about it
        self.finished = path / "finished.json"
        self.model = path / "model.zip"
        self.visits = path / "visits.npz"
        self.densities = path / "densities.npz"
        self.checkpoints = path / "checkpoints"
        self.diagnostics = path / "diagnostics"
        #: asks the run to write a checkpoint and to end; a file works in every operating system and on every engine
        self.stop = path / "stop"
        #: the run is to be made although its results are published
        self.anew = path / "anew"
        self.lock = path / "lock"

    def write_spec(self, spec: RunSpec, command: str) -> None:
        """
        :param spec: the run
        :param command: the command that started it
        """
        write_json(self.spec, {"command": command, **asdict(spec)})

    def read_spec(self) -> tuple[RunSpec, str]:
        """
        :return: the run, and the command that started it
        """
        content = read_json(self.spec)
        command = content.pop("command")
        content["task"] = Task(**content["task"])
        content["metrics"] = tuple(Metric(**metric) for metric in content["metrics"])
        return RunSpec(**content), command

    def write_rows(self, rows: Sequence[Row]) -> None:
        """
        :param rows: the measurements so far
        """
        lines = ["metric,step,value", *(f"{row.metric},{row.step},{row.value!r}" for row in rows)]
        write_text(self.rows, "\n".join(lines) + "\n")

    def read_rows(self) -> list[Row]:
        """
        :return: the measurements so far
        """
        if not self.rows.is_file():
            return []
        with open(self.rows, newline="", encoding="utf-8") as file:
            return [Row(line["metric"], int(line["step"]), float(line["value"])) for line in csv.DictReader(file)]

    def is_finished(self) -> bool:
        """
        :return: whether the run has reached its budget
        """
        return self.finished.is_file()


def run_folder(work: Path, spec: RunSpec) -> RunFolder:
    """
    :param work: the work folder of the experiment
    :param spec: a run
    :return: its files
    """
    return RunFolder(work / spec.label / f"seed_{spec.seed}")


def make_work_folder(path: Path) -> Path:
    """
    :param path: a folder to make, out of git's sight if it is part of :data:`WORK`
    :return: the folder
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_relative_to(WORK):
        write_text(WORK / ".gitignore", "*\n")
    return path


def write_text(path: Path, text: str) -> None:
    """
    Write a file at once: who reads it, sees the old content or the new one, also when the writer is killed.

    :param path: the file
    :param text: its content
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """
    :param path: the file
    :param content: its content
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """
    :param path: the file
    :return: its content
    """
    return json.loads(path.read_text(encoding="utf-8"))


def add_to_json(path: Path, entries: Mapping[str, Any]) -> None:
    """
    Replace or add entries of a file that holds a mapping; where there is none, it is made.

    :param path: the file
    :param entries: by name
    """
    known = read_json(path) if path.is_file() else {}
    write_json(path, {**known, **entries})


def is_locked(path: Path) -> bool:
    """
    :param path: a lock's file
    :return: whether some process holds the lock
    """
    try:
        with locked(path, wait=False):
            return False
    except BlockingIOError:
        return True


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """
    Hold a lock that the operating system takes back if its holder dies.

    :param path: the lock's file
    :param wait: wait for the holder; else give up
    :raises BlockingIOError: if the lock is held and ``wait`` is False
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: one command at a time is up to the user
        yield
        return
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
