"""Published results: one CSV file a curve and a manifest that says where each run comes from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runs import Row, RunFolder, RunSpec, locked, read_json, write_json, write_text
from benchmarks.schema import FIRST_TUNING_SEED, Experiment

COLUMNS = ("step", "value", "seed", "metric")
#: rows kept of a run and metric
MAX_ROWS = 200


@dataclass
class Results:
    """
    The results of an experiment in a folder.

    :param folder: ``<label>.csv`` of every curve and ``manifest.json``
    :param visits: whether what runs have visited is published too, for maps
    """

    folder: Path
    visits: bool = True
    manifest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Read the manifest anew."""
        path = self.folder / "manifest.json"
        empty: dict[str, Any] = {"experiment": None, "runs": {}, "settings": {}, "environments": {}}
        self.manifest = read_json(path) if path.is_file() else empty

    def fingerprint_of(self, label: str, seed: int) -> str | None:
        """
        :param label: label of a curve
        :param seed: seed of a run
        :return: the fingerprint of the published run, if there is one
        """
        run = self.manifest["runs"].get(label, {}).get(str(seed))
        return None if run is None else str(run["settings"])

    def settings_of(self, fingerprint: str) -> dict[str, Any]:
        """
        :param fingerprint: of a published run
        :return: its identity, see :meth:`RunSpec.identity`
        """
        return dict(self.manifest["settings"].get(fingerprint, {}))

    def mixed(self, label: str) -> dict[str, list[int]]:
        """
        :param label: label of a curve
        :return: its seeds by fingerprint if they were not all made with the same settings, as while a change is being run
            anew; else nothing
        """
        seeds: dict[str, list[int]] = {}
        for seed, run in self.manifest["runs"].get(label, {}).items():
            if "settings" in run:
                seeds.setdefault(run["settings"], []).append(int(seed))
        return seeds if len(seeds) > 1 else {}

    def publish(self, finished: Sequence[RunFolder], lock: Path) -> None:
        """
        Add finished runs, or replace what was published of them.

        :param finished: the runs
        :param lock: file of the lock against other commands that publish to the same folder
        :raises ValueError: if training seeds and tuning seeds would be mixed
        """
        if not finished:
            return
        with locked(lock):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.reload()
            # Each run says itself what it is: it may have been begun with other settings than those of today
            runs = [(folder.read_spec()[0], folder) for folder in finished]
            for label in sorted({spec.label for spec, _ in runs}):
                rows = read_curve(self.folder / f"{label}.csv")
                for spec, folder in runs:
                    if spec.label == label:
                        rows[spec.seed] = folder.read_rows()
                        self._note(spec, folder)
                seeds = [seed >= FIRST_TUNING_SEED for seed in rows]
                if any(seeds) and not all(seeds):
                    raise ValueError(
                        f"folder={str(self.folder)!r} mixes seeds for tuning (from {FIRST_TUNING_SEED} on) with others"
                    )
                write_curve(self.folder / f"{label}.csv", rows)
            self._write_manifest()
            for folder in finished:
                folder.anew.unlink(missing_ok=True)

    def _note(self, spec: RunSpec, folder: RunFolder) -> None:
        record = read_json(folder.finished)
        environment = record.pop("environment")
        record["settings"] = record.pop("fingerprint")
        environments = self.manifest["environments"]
        key = next((name for name, known in environments.items() if known == environment), None)
        if key is None:
            key = f"environment_{1 + max((int(name.rpartition('_')[2]) for name in environments), default=0)}"
            environments[key] = environment
        self.manifest["experiment"] = spec.experiment
        self.manifest["settings"][record["settings"]] = spec.identity()
        runs = self.manifest["runs"].setdefault(spec.label, {})
        runs[str(spec.seed)] = {**record, "environment": key}
        for file in (*([folder.visits] if self.visits else []), folder.densities):
            if file.is_file():
                shutil.copyfile(file, self.folder / f"{file.stem}_{spec.label}_{spec.seed}.npz")

    def _write_manifest(self) -> None:
        runs = {
            label: {seed: self.manifest["runs"][label][seed] for seed in sorted(self.manifest["runs"][label], key=int)}
            for label in sorted(self.manifest["runs"])
        }
        used = [run for seeds in runs.values() for run in seeds.values()]
        content = {"experiment": self.manifest["experiment"], "runs": runs}
        # What no run refers to any more is dropped
        for table, reference in (("settings", "settings"), ("environments", "environment")):
            keys = {run[reference] for run in used}
            content[table] = {key: value for key, value in sorted(self.manifest[table].items()) if key in keys}
        self.manifest = content
        write_json(self.folder / "manifest.json", content)


def thin(rows: Sequence[Row], limit: int = MAX_ROWS) -> list[Row]:
    """
    :param rows: measurements of one metric, by step
    :param limit: rows to keep
    :return: rows at even distances, the first and the last among them
    """
    if len(rows) <= limit:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (limit - 1))] for i in range(limit)]


def read_curve(path: Path) -> dict[int, list[Row]]:
    """
    :param path: a CSV file of results
    :return: measurements by seed; none if there is no such file
    :raises ValueError: if the file has other columns
    """
    rows: dict[int, list[Row]] = {}
    if not path.is_file():
        return rows
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"path={str(path)!r} has columns {reader.fieldnames}, expected {COLUMNS}")
        for line in reader:
            row = Row(line["metric"], int(line["step"]), float(line["value"]))
            rows.setdefault(int(line["seed"]), []).append(row)
    return rows


def source_of(folder: Path, experiment: Experiment, label: str) -> Path:
    """
    :param folder: results of an experiment, ``<name>`` or ``<name>/results``, beside those of others
    :param experiment: the experiment
    :param label: one of its algorithms
    :return: the folder that the algorithm's results are in: those of the experiment that trains it
    """
    name = experiment.shared.get(label)
    if name is None:
        return folder
    return folder.parent / name if folder.name == experiment.name else folder.parent.parent / name / folder.name


def read_runs(folder: Path, experiment: Experiment, label: str) -> dict[int, list[Row]]:
    """
    :param folder: results of an experiment, beside those of others
    :param experiment: the experiment
    :param label: one of its algorithms
    :return: measurements by seed, wherever the runs were made, up to the experiment's budget
    """
    runs = read_curve(source_of(folder, experiment, label) / f"{label}.csv")
    return {seed: [row for row in rows if row.step <= experiment.budget] for seed, rows in runs.items()}


def write_curve(path: Path, rows: dict[int, list[Row]]) -> None:
    """
    :param path: a CSV file of results
    :param rows: measurements by seed
    """
    lines = [",".join(COLUMNS)]
    for metric in sorted({row.metric for run in rows.values() for row in run}):
        for seed in sorted(rows):
            mine = sorted(row for row in rows[seed] if row.metric == metric)
            lines += [f"{row.step},{row.value:.6g},{seed},{metric}" for row in thin(mine)]
    write_text(path, "\n".join(lines) + "\n")


def unpublished(results: Results, runs: Iterable[tuple[RunSpec, RunFolder]]) -> list[RunFolder]:
    """
    :param results: published results
    :param runs: what runs are today, with their files
    :return: those that are finished, but not among the results; what was made with settings of before does not take the place
        of what is published, which may be newer
    """
    found = []
    for spec, folder in runs:
        if folder.is_finished():
            made = folder.read_spec()[0].fingerprint()
            published = results.fingerprint_of(spec.label, spec.seed)
            if folder.anew.is_file() or published is None or made == spec.fingerprint() != published:
                found.append(folder)
    return found
