"""What an experiment is made of: a task, metrics, algorithms, and how they are grouped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: from this seed on, seeds are for tuning and never appear in published results
FIRST_TUNING_SEED = 1000

#: what a metric's name may be, and the label of its axis
METRIC_LABELS = {
    "coverage": "coverage (share of 100 cells)",
    "return": "return of the deterministic policy",
    "success": "success rate of the deterministic policy",
    "mean_reward": "mean reward of the stochastic policy",
}

#: how a task's vectorised environment is made
VEC_ENVS = ("zoo", "maze", "push")

#: algorithms that do not learn: the floor that others are measured against, computed exactly
RANDOM_BASELINES = {"random_uniform": "uniform", "random_direction": "direction"}


@dataclass(frozen=True)
class Task:
    """
    An environment.

    :param env_id: gymnasium's id
    :param vec_env: "zoo": RL Zoo makes the vectorised environment; "maze": a batched ``MazeVecEnv``, which counts coverage;
        "push": a batched ``PushVecEnv``
    :raises ValueError: if ``vec_env`` is unknown
    """

    env_id: str
    vec_env: str = "zoo"

    def __post_init__(self) -> None:
        if self.vec_env not in VEC_ENVS:
            raise ValueError(f"vec_env={self.vec_env!r} is unknown; use one of {VEC_ENVS}")


@dataclass(frozen=True)
class Metric:
    """
    A number that is measured again and again during training.

    "return" and "success" come from the same evaluation, which also records what the training episodes reached in the
    meantime ("train_return", "train_success"); "mean_reward" is for the bandit and also records "mean_reward_deterministic".

    :param name: a key of :data:`METRIC_LABELS`
    :param every: environment steps between two measurements
    :param episodes: episodes of an evaluation
    :param final_share: the final value of a run is the mean over this last share of the budget; 0: the last value
    :raises ValueError: if a value is out of its range
    """

    name: str
    every: int
    episodes: int = 10
    final_share: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in METRIC_LABELS:
            raise ValueError(f"name={self.name!r} is no metric; use one of {tuple(METRIC_LABELS)}")
        if self.every < 1 or self.episodes < 1:
            raise ValueError(f"every={self.every} and episodes={self.episodes} must be at least 1")
        if not 0.0 <= self.final_share <= 1.0:
            raise ValueError(f"final_share={self.final_share} must lie between 0 and 1")


@dataclass(frozen=True)
class Algorithm:
    """
    One curve.

    :param label: name of the curve and of its file
    :param base: RL Zoo's name of the algorithm ("rpg", "sac", "sac_rnd", "ppo", ...) or "reinforce", whose hyperparameter file
        applies; or a key of :data:`RANDOM_BASELINES`
    :param overrides: hyperparameters that replace the file's, written as the file would: plain data, code as strings
    """

    label: str
    base: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return self.base not in RANDOM_BASELINES


@dataclass(frozen=True)
class Group:
    """
    Algorithms that differ in one thing: a panel and a table of their own. What several groups have in common is trained once.

    :param name: name on the command line
    :param title: title of panel and table
    :param labels: labels of the algorithms
    """

    name: str
    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """
    Algorithms compared on a task.

    :param name: name on the command line and of the folder of results
    :param title: title of the figure
    :param task: the environment
    :param budget: environment steps of a run
    :param metrics: what is measured; the first one is what figure and table show
    :param algorithms: the curves
    :param baseline: label of the curve that the others are compared with in the table
    :param seeds: number of seeds: 0, 1, ..., seeds - 1
    :param groups: how figure and table are divided; none: not at all
    :param milestones: steps on the way whose values a table of their own shows
    :param shared: labels of algorithms that a longer experiment trains with the same settings: their first steps are these
        runs, so they are read there, up to this budget, and not trained again; by label, the experiment's name
    :raises ValueError: if names clash, the baseline is none of the algorithms, or a number is not positive
    """

    name: str
    title: str
    task: Task
    budget: int
    metrics: tuple[Metric, ...]
    algorithms: tuple[Algorithm, ...]
    baseline: str
    seeds: int
    groups: tuple[Group, ...] = ()
    milestones: tuple[int, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [algorithm.label for algorithm in self.algorithms]
        if len(set(labels)) != len(labels):
            raise ValueError(f"algorithms of {self.name!r} share a label: {labels}; give each its own")
        if self.baseline not in labels:
            raise ValueError(f"baseline={self.baseline!r} of {self.name!r} is none of its algorithms {labels}")
        for group in self.groups:
            if unknown := sorted(set(group.labels) - set(labels)):
                raise ValueError(f"group {group.name!r} of {self.name!r} names {unknown}, which are none of its algorithms")
        if unknown := sorted(set(self.shared) - set(labels)):
            raise ValueError(f"shared={unknown} of {self.name!r} are none of its algorithms")
        if self.budget < 1 or self.seeds < 1 or not self.metrics:
            raise ValueError(f"{self.name!r} needs a budget and seeds of at least 1, and a metric")
        if not all(0 <= step <= self.budget for step in self.milestones):
            raise ValueError(f"milestones={self.milestones} of {self.name!r} must lie between 0 and its budget, {self.budget}")
        if {"return", "success"} <= {metric.name for metric in self.metrics}:
            raise ValueError(f"metrics of {self.name!r}: 'return' and 'success' come from one evaluation; name one of them")

    @property
    def metric(self) -> Metric:
        """The metric of figure and table."""
        return self.metrics[0]

    @property
    def has_maps(self) -> bool:
        """Whether maps of what runs visit are drawn: where all is trained here, else those of the longer runs show more."""
        return self.task.vec_env != "zoo" and not self.shared

    def with_budget(self, budget: int) -> Experiment:
        """
        :param budget: environment steps of a run
        :return: the same experiment with another budget, under another name: its results are not the experiment's
        """
        if budget == self.budget:
            return self
        milestones = tuple(step for step in self.milestones if step <= budget)
        return replace(self, name=f"{self.name}_n{budget}", budget=budget, milestones=milestones, shared={})

    def select(self, labels: list[str] | None) -> list[Algorithm]:
        """
        :param labels: labels of algorithms; None: all
        :return: the algorithms, in the experiment's order
        :raises ValueError: if a label is unknown
        """
        known = {algorithm.label for algorithm in self.algorithms}
        unknown = sorted(set(labels or ()) - known)
        if unknown:
            raise ValueError(f"algos={unknown} are not in the experiment {self.name!r}; it has {sorted(known)}")
        return [algorithm for algorithm in self.algorithms if labels is None or algorithm.label in labels]

    def groups_with(self, labels: Collection[str]) -> list[Group]:
        """
        :param labels: labels of algorithms that there are results of
        :return: the groups that at least two of them belong to: what all groups share tells nothing alone
        """
        return [group for group in self.groups if len(set(group.labels) & set(labels)) > 1]

    def labels_of(self, names: list[str]) -> list[str]:
        """
        :param names: names of groups
        :return: labels of their algorithms, each once
        :raises ValueError: if a name is unknown
        """
        groups = {group.name: group for group in self.groups}
        if unknown := sorted(set(names) - set(groups)):
            raise ValueError(f"groups={unknown} are not in the experiment {self.name!r}; it has {sorted(groups)}")
        return list(dict.fromkeys(label for name in names for label in groups[name].labels))
