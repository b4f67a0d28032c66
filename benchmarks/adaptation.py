"""
Does a trained agent still get there when the world has changed? ``python -m benchmarks.adaptation <experiment>``.

Takes the models that ``python -m benchmarks.run <experiment>`` has left in its work folder, changes their environment
(passages of the maze walled off, an actuator of the robot dead), gives each agent ten trial episodes there, and measures what
it then does in fresh ones. No agent is trained any further:

- RPG chooses among its z by successive halving, one z of each mode first; modes are those of the unchanged environment.
- Agents without z (SAC, latent "none") have nothing to choose but whether to take their mean action or to sample: their trials
  decide between these two, by the same rule. What their best trial reached is reported beside it.

Can be interrupted; what is measured is not measured again. Writes a CSV, one row a model and change, and from it a table and a
figure; ``--draw`` makes these two from the CSV alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from benchmarks.adaptation_report import draw_adaptation, make_table
from benchmarks.experiments import find_experiment
from benchmarks.figures import colors_of
from benchmarks.measures import EVALUATION_SEEDS, isolated_randomness
from benchmarks.provenance import environment, origin
from benchmarks.report import IMAGES
from benchmarks.runs import RESULTS, WORK, RunFolder, RunSpec, add_to_json, locked, write_text
from benchmarks.schema import METRIC_LABELS, RANDOM_BASELINES
from benchmarks.settings import load_zoo
from sb3_rpg.envs import MazeVecEnv, WeakActuator
from sb3_rpg.modes import FixedLatent, adapt, find_modes, mode_latents, principal_paths, roll_out, sample_latents
from sb3_rpg.modes import successive_halving as halve
from sb3_rpg.modes.trajectories import first_observation

if TYPE_CHECKING:
    from sb3_rpg import RPG

#: where the maze's agent starts, so that fresh episodes differ from the trials
START_NOISE = 0.2
#: copies of the environment wherever no trials are counted, at most
COPIES = 10
COLUMNS = ("label", "seed", "change", "trials", "unadapted", "best_trial", "adapted", "settings")


@dataclass(frozen=True)
class Change:
    """
    What happens to an environment.

    :param name: its name in results
    :param make_env: makes so many copies of the environment afterwards
    """

    name: str
    make_env: Callable[[int], VecEnv]


@dataclass(frozen=True)
class Robustness:
    """
    The changes that an experiment's agents are put before.

    :param metric: "success" or "return"
    :param descriptor: what tells modes apart; None: the principal components of the observations
    :param unchanged: makes so many copies of the environment as it was
    :param changes: the changes
    """

    metric: str
    descriptor: str | None
    unchanged: Callable[[int], VecEnv]
    changes: tuple[Change, ...]


def _maze(n_envs: int, blocked: Sequence[tuple[int, int]] = ()) -> VecEnv:
    return MazeVecEnv(n_envs, reward="escape", start_noise=START_NOISE, blocked=blocked)


def _with_dead_actuator(env_id: str, n_envs: int, index: int | None = None, factor: float = 0.0) -> VecEnv:
    def make() -> gym.Env:
        env = gym.make(env_id)
        return env if index is None else WeakActuator(env, index, factor)

    return DummyVecEnv([make] * n_envs)


EXITS = {"left": (-1, 0), "right": (1, 0), "down": (0, -1), "up": (0, 1)}
MAZE = Robustness(
    "success",
    "position",
    _maze,
    tuple(
        Change(f"only {name} open", partial(_maze, blocked=[other for other in EXITS.values() if other != way]))
        for name, way in EXITS.items()
    ),
)
JOINTS = ("back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot")
HALFCHEETAH = Robustness(
    "return",
    None,
    partial(_with_dead_actuator, "HalfCheetah-v5"),
    tuple(
        Change(f"{joint} dead", partial(_with_dead_actuator, "HalfCheetah-v5", index=index))
        for index, joint in enumerate(JOINTS)
    ),
)
ROBUSTNESS = {"maze": MAZE, "halfcheetah_100k": HALFCHEETAH}


@dataclass(frozen=True)
class Protocol:
    """
    How much is spent.

    :param trials: episodes in the changed environment that an agent may choose by
    :param episodes: fresh episodes of each evaluation
    :param latents: latents that modes are looked for among
    """

    trials: int = 10
    episodes: int = 20
    latents: int = 64

    def __str__(self) -> str:
        return f"{self.trials}-{self.episodes}-{self.latents}"


def evaluate(model: Any, env: VecEnv, metric: str, episodes: int, deterministic: bool) -> float:
    """
    :param model: what acts
    :param env: the environment
    :param metric: "success" or "return"
    :param episodes: number of episodes
    :param deterministic: whether to take the mode of the policy
    :return: mean over the episodes
    """
    outcomes: list[float] = []

    def note(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"] and metric == "success":
            outcomes.append(float(local["info"]["is_success"]))

    returns, _ = evaluate_policy(
        model, env, episodes, deterministic=deterministic, callback=note, return_episode_rewards=True, warn=False
    )
    return float(np.mean(outcomes if metric == "success" else returns))


def measure(
    model: BaseAlgorithm,
    robustness: Robustness,
    change: Change,
    protocol: Protocol,
    seed: int,
    candidates: np.ndarray | None = None,
) -> dict[str, float]:
    """
    :param model: a trained model
    :param robustness: what it is put before
    :param change: the change
    :param protocol: how much is spent
    :param seed: seed of the measurement
    :param candidates: the z to choose among, see :func:`find_candidates`; None: the agent has no z
    :return: ``unadapted``: without any trial, the deterministic policy; ``best_trial``: what the best trial reached;
        ``adapted``: what the choice made by the trials reaches in fresh episodes; ``trials``: how many were used
    """

    def fresh(actor: Any, deterministic: bool) -> float:
        env = change.make_env(min(COPIES, protocol.episodes))
        env.seed(seed + 100)
        return evaluate(actor, env, robustness.metric, protocol.episodes, deterministic)

    with isolated_randomness(seed):
        unadapted = fresh(model, True)
        env = change.make_env(1)
        env.seed(seed)
        if candidates is not None:
            found = adapt(cast("RPG", model), env, protocol.trials, candidates)
            reached = [
                float(t.success or 0) if robustness.metric == "success" else t.episode_return for t in found.trajectories
            ]
            adapted = fresh(FixedLatent(cast("RPG", model), found.latent), True)
        else:
            reached = []

            def trial(choice: int) -> float:
                reached.append(evaluate(model, env, robustness.metric, 1, deterministic=choice == 0))
                return reached[-1]

            adapted = fresh(model, halve(trial, 2, protocol.trials)[0] == 0)
    return {"trials": len(reached), "unadapted": unadapted, "best_trial": max(reached), "adapted": adapted}


def find_candidates(model: BaseAlgorithm, robustness: Robustness, protocol: Protocol, seed: int) -> np.ndarray | None:
    """
    :param model: a trained model
    :param robustness: what it is put before
    :param protocol: how much is spent
    :param seed: seed of the measurement
    :return: what RPG chooses among, (``protocol.latents``, latent_dim), one z of each mode in the unchanged environment first;
        None for an agent without z
    """
    from sb3_rpg import RPG

    if not isinstance(model, RPG) or model.latent_space.dim == 0:
        return None
    with isolated_randomness(seed):
        env = robustness.unchanged(min(COPIES, protocol.latents))
        env.seed(seed)
        latents = sample_latents(model, first_observation(env), protocol.latents)
        trajectories = roll_out(model, env, latents, robustness.descriptor)
        paths = principal_paths(trajectories).trajectories if robustness.descriptor is None else trajectories
        return mode_latents(paths, find_modes(paths))


def load_model(folder: RunFolder, spec: RunSpec) -> BaseAlgorithm:
    """
    :param folder: a finished run
    :param spec: what it was
    :return: its model
    :raises ValueError: if it acts on normalised observations, whose statistics runs do not keep
    """
    from rl_zoo3.utils import ALGOS

    if spec.settings.get("normalize"):
        raise ValueError(f"run={spec.name!r} was trained with VecNormalize, whose statistics are not in its folder")
    return ALGOS[spec.base].load(folder.model, device="cpu")


def finished_runs(work: Path, labels: Sequence[str] | None = None) -> list[RunFolder]:
    """
    :param work: the work folder of an experiment
    :param labels: labels of algorithms; None: all
    :return: their finished runs that have a model, by label and seed
    :raises ValueError: if there are none
    """
    folders = [RunFolder(path.parent) for path in work.glob("*/seed_*/finished.json")]
    specs = [(folder.read_spec()[0], folder) for folder in folders]
    runs = [
        (s.label, s.seed, f)
        for s, f in specs
        if (labels is None or s.label in labels) and s.base not in RANDOM_BASELINES and f.model.is_file()
    ]
    if not runs:
        wanted = "" if labels is None else f" of {', '.join(labels)}"
        raise ValueError(
            f"work={str(work)!r} holds no finished run{wanted} with a model: run `python -m benchmarks.run` first, with "
            "--again where the results are published already, as in a fresh clone"
        )
    return [folder for *_, folder in sorted(runs, key=lambda run: run[:2])]


def read_rows(path: Path) -> list[dict[str, str]]:
    """
    :param path: the CSV file of an earlier call
    :return: its rows; none if there is no such file
    :raises ValueError: if it has other columns
    """
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"path={str(path)!r} has columns {reader.fieldnames}, expected {COLUMNS}")
        return list(reader)


def rows_of(path: Path, protocol: Protocol) -> list[dict[str, str]]:
    """
    :param path: the CSV file
    :param protocol: how much was spent
    :return: its rows with this protocol, also of runs whose models are gone
    :raises ValueError: if there are none
    """
    rows = [row for row in read_rows(path) if row["settings"].endswith(f"-{protocol}")]
    if not rows:
        raise ValueError(
            f"path={str(path)!r} holds nothing measured with trials-episodes-latents {protocol}; measure it first"
        )
    return rows


def complete_rows(rows: Sequence[dict[str, str]], changes: Sequence[Change]) -> list[dict[str, str]]:
    """
    :param rows: of :func:`rows_of`
    :param changes: all that a model is put before
    :return: the rows of the runs that were measured on all of them, as means over the changes can be taken of these alone
    """
    names = {change.name for change in changes}
    measured: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        measured.setdefault((row["label"], row["seed"]), set()).add(row["change"])
    for (label, seed), seen in measured.items():
        if missing := names - seen:
            print(f"{label}/seed {seed} is left out: not measured yet on {', '.join(sorted(missing))}")
    return [row for row in rows if measured[row["label"], row["seed"]] >= names]


def measure_missing(
    robustness: Robustness,
    work: Path,
    path: Path,
    protocol: Protocol,
    labels: Sequence[str] | None = None,
    again: bool = False,
) -> None:
    """
    Measure what is not in the CSV file yet. Rows of a run that was made anew since with other settings are replaced.

    :param robustness: the changes
    :param work: the work folder of the experiment
    :param path: the CSV file, rewritten after each measurement; beside it, a ``.json`` tells by run and protocol where
        they come from
    :param protocol: how much is spent
    :param labels: labels of algorithms; None: all
    :param again: replace what is in the file of these runs, as after they were made anew with the same settings
    :raises ValueError: if there are no runs
    """
    load_zoo()
    rows = {_key_of(row): row for row in read_rows(path)}
    code = origin()
    for folder in finished_runs(work, labels):
        spec = folder.read_spec()[0]
        # With another protocol or other settings of the run, a row is of something else
        settings = f"{spec.fingerprint()}-{protocol}"
        model: BaseAlgorithm | None = None
        candidates: np.ndarray | None = None
        for number, change in enumerate(robustness.changes):
            row = {"label": spec.label, "seed": str(spec.seed), "change": change.name, "settings": settings}
            if not again and rows.get(_key_of(row), {}).get("settings") == settings:
                continue
            seed = EVALUATION_SEEDS + 1000 * spec.seed
            if model is None:
                model = load_model(folder, spec)
                candidates = find_candidates(model, robustness, protocol, seed)
            values = measure(model, robustness, change, protocol, seed + 1 + number, candidates)
            print(f"{spec.name}, {change.name}: {robustness.metric} {values['unadapted']:.4g} -> {values['adapted']:.4g}")
            with locked(work / "adaptation.lock"):
                # Another command may have written rows of other algorithms meanwhile
                rows = {_key_of(row): row for row in read_rows(path)} | {_key_of(row): {**row, **_texts(values)}}
                lines = [",".join(COLUMNS), *(",".join(row[column] for column in COLUMNS) for row in rows.values())]
                write_text(path, "\n".join(lines) + "\n")
                add_to_json(path.with_suffix(".json"), {f"{spec.name}, {protocol}": {**environment(), **code}})


def _key_of(row: dict[str, str]) -> tuple[str, ...]:
    """What a row is of: everything but the settings of the run, which change where the run is made anew."""
    return row["label"], row["seed"], row["change"], row["settings"].partition("-")[2]


def _texts(values: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in values.items()}


def main(arguments: list[str] | None = None) -> int:
    """
    :param arguments: command line; None: that of the process
    :return: exit code
    """
    protocol = Protocol()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description=__doc__)
    parser.add_argument("experiment", choices=sorted(ROBUSTNESS), help="experiment whose models are taken")
    parser.add_argument("--algos", nargs="+", help="labels of the algorithms to measure (default: all)")
    parser.add_argument("--draw", action="store_true", help="measure nothing: table and figure from the CSV alone")
    parser.add_argument("--again", action="store_true", help="also measure what is in the CSV, as of runs made anew")
    parser.add_argument("--work", type=Path, help="its work folder (default: benchmarks/work/<experiment>)")
    parser.add_argument("--output", type=Path, help="where to write CSV and figure (default: results and docs/images)")
    parser.add_argument("--trials", type=int, default=protocol.trials, help="trial episodes (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=protocol.episodes, help="of an evaluation (default: %(default)s)")
    parser.add_argument("--latents", type=int, default=protocol.latents, help="to find modes (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    try:
        for name, least in (("trials", 1), ("episodes", 1), ("latents", 2)):
            if getattr(parsed, name) < least:
                raise ValueError(f"{name}={getattr(parsed, name)} must be at least {least}")
        robustness = ROBUSTNESS[parsed.experiment]
        results = RESULTS / "adaptation" if parsed.output is None else parsed.output
        path = results / f"{parsed.experiment}.csv"
        protocol = Protocol(parsed.trials, parsed.episodes, parsed.latents)
        if not parsed.draw:
            measure_missing(robustness, parsed.work or WORK / parsed.experiment, path, protocol, parsed.algos, parsed.again)
        rows = complete_rows(rows_of(path, protocol), robustness.changes)
        # In the order and the colours of the experiment's own figures
        experiment = find_experiment(parsed.experiment)
        places = {algorithm.label: place for place, algorithm in enumerate(experiment.algorithms)}
        rows.sort(key=lambda row: (places.get(row["label"], len(places)), row["label"], int(row["seed"])))
        image = (IMAGES if parsed.output is None else parsed.output) / f"adaptation_{parsed.experiment}.png"
        label = METRIC_LABELS[robustness.metric].replace(" of the deterministic policy", "")
        draw_adaptation(image, rows, label, protocol.trials, colors_of(experiment))
        table = make_table(rows, label, protocol.trials)
        write_text(results / f"{parsed.experiment}.md", table)
        print(f"{table}\nwritten: {path}\nwritten: {image}")
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
