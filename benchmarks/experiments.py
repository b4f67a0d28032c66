"""
What is measured: tasks, budgets, metrics and algorithms of every experiment, as plain data.

``python -m benchmarks.run --list`` prints them. To add one, append it to :data:`EXPERIMENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.schema import RANDOM_BASELINES, Algorithm, Experiment, Group, Metric, Task

MAZE = Task("RPGMaze-v0", "maze")
MAZE_SPARSE = Task("RPGMazeSparse-v0", "maze")
PUSH = Task("RPGPointPush-v0", "push")
RPG, SAC, SAC_RND = Algorithm("rpg", "rpg"), Algorithm("sac", "sac"), Algorithm("sac_rnd", "sac_rnd")
#: the same model, updates and bonus without z
MBSAC_R = Algorithm("mbsac_r", "rpg", {"latent": "none"})
MBSAC = Algorithm("mbsac", "rpg", {"latent": "none"})  # where there is no bonus
#: of log p(z|s,a), less is to be gained than with a Gaussian z of 12: with the file's beta of 0.01 z was ignored (one seed)
RPG_CATEGORICAL = Algorithm("rpg_categorical", "rpg", {"latent": "categorical", "beta": 0.05})
#: what is left out for speed: float32, targets of as many imagined steps as the actor's, all replayed steps; the actor's
#: states are named although they are the default, as its runs are known by their settings
PRECISE = {"precision": "fp32", "target_horizon": 3, "head_steps": None, "actor_batch_size": 256}
RPG_PRECISE = Algorithm("rpg_precise", "rpg", PRECISE)
#: the paper's posterior term
NO_BASELINE = {"posterior_baseline": False}
RPG_NO_BASELINE = Algorithm("no_baseline", "rpg", NO_BASELINE)
#: a part of each batch by novelty; uniform batches where the file has such a part
RPG_NOVELTY = Algorithm("novelty_replay", "rpg", {"novelty_share": 0.25})
RPG_UNIFORM = Algorithm("uniform_replay", "rpg", {"novelty_share": 0.0})
RANDOM = tuple(Algorithm(name, name) for name in RANDOM_BASELINES)
MAZE_METRICS = (Metric("coverage", every=2500),)
#: trained for the whole budget of ``maze``; what measures less of the same runs reads them there
MAZE_ALGORITHMS = (RPG, RPG_CATEGORICAL, MBSAC_R, SAC_RND, SAC, RPG_NO_BASELINE, RPG_NOVELTY, *RANDOM)


def _standard(task: str, *others: Algorithm) -> Experiment:
    """A task of gymnasium's, against the off-policy algorithms that users would take otherwise, and others."""
    # RL Zoo has them act at random for 5,000 to 10,000 steps, which is meant for a budget of a million and more
    early = {"learning_starts": 1000}
    return Experiment(
        name=f"{task.lower()}_100k",
        title=f"{task}-v5, 100,000 steps",
        task=Task(f"{task}-v5"),
        budget=100_000,
        metrics=(Metric("return", every=5000, final_share=0.1),),
        algorithms=(
            RPG,
            Algorithm("sac", "sac", early),
            Algorithm("tqc", "tqc", early),
            Algorithm("crossq", "crossq", early),
            *others,
        ),
        baseline="sac",
        seeds=3,
        milestones=(25_000, 50_000),
    )


def _rpg(label: str, **overrides: Any) -> Algorithm:
    return Algorithm(label, "rpg", overrides)


def _rnd(label: str, **overrides: Any) -> Algorithm:
    """RPG on the maze with another RND; the file's arguments of the bonus are replaced as a whole."""
    return _rpg(label, intrinsic_reward_kwargs={"normalize": False, **overrides})


#: by group: title and algorithms beside ``rpg``, which is every group's default and trained once
_MAZE_GROUPS: Mapping[str, tuple[str, tuple[Algorithm, ...]]] = {
    "baselines": ("without z (mbsac_r), SAC with the same bonus (sac_rnd), chance", (MBSAC_R, SAC_RND, *RANDOM)),
    "speed": (
        "what speed costs, with the paper's posterior term (no_baseline): targets of one step (targets_1, without z: "
        "mbsac_r_targets_1), float32 and heads that learn from all steps (rpg_precise)",
        (
            RPG_NO_BASELINE,
            _rpg("targets_1", target_horizon=1, **NO_BASELINE),
            _rpg("mbsac_r_targets_1", latent="none", target_horizon=1),
            _rpg("rpg_precise", **PRECISE, **NO_BASELINE),
        ),
    ),
    "latent": (
        "distribution of z (rpg: Gaussian; beta 0.05 where categorical, also with the 0.01 of the others); none, alone "
        "(mbsac_r) and with a mixture of Gaussians as the policy (gmm)",
        (
            RPG_CATEGORICAL,
            _rpg("categorical_beta_0.01", latent="categorical"),
            _rpg("mixed", latent="mixed"),
            _rpg("hypersphere", latent="hypersphere"),
            MBSAC_R,
            _rpg("gmm", latent="none", policy_kwargs={"n_mixture": 5}),
        ),
    ),
    "latent_dim": ("dimension of z (rpg: 12)", tuple(_rpg(f"dim_{n}", latent_dim=n) for n in (1, 3, 6, 24))),
    "beta": (
        "beta (rpg: 0.01), and log p(z|s,a) itself instead of its gain on a posterior that knows nothing (no_baseline)",
        (*(_rpg(f"beta_{beta:g}", beta=beta) for beta in (0.0, 1e-4, 1e-3, 5e-3, 5e-2)), RPG_NO_BASELINE),
    ),
    "horizon": ("K, replayed and imagined steps (rpg: 3)", tuple(_rpg(f"horizon_{k}", horizon=k) for k in (1, 5))),
    "replay": (
        "batches drawn by novelty: a quarter of them (novelty_replay) or half; in proportion to the bonus's error itself, "
        "instead of its square (novelty_linear)",
        (
            RPG_NOVELTY,
            _rpg("novelty_half", novelty_share=0.5),
            _rpg("novelty_linear", novelty_share=0.25, novelty_exponent=1.0),
        ),
    ),
    "rnd": (
        "parts of RND",
        (
            # Of the observation, x / 5 and y / 5 alone
            _rnd("no_encoding", obs_scale=0.0, indices=[2, 15], n_frequencies=0),
            # The last tenth of the budget, also for the model and the policy
            _rpg("small_buffer", buffer_size=10_000),
            _rpg("no_normaliser", intrinsic_reward="rnd_unnormalized"),
        ),
    ),
    "bonus": (
        "bonus (rpg: RND)",
        (
            _rpg("icm", intrinsic_reward="icm", intrinsic_reward_kwargs={}),
            _rpg("disagreement", intrinsic_reward="disagreement", intrinsic_reward_kwargs={}),
            _rpg("no_bonus", intrinsic_reward="none"),
        ),
    ),
}


def _part_of_maze(name: str, title: str, budget: int, algorithms: tuple[Algorithm, ...], **fields: Any) -> Experiment:
    """The maze for fewer steps; algorithms that ``maze`` trains too are read there."""
    return Experiment(
        name=name,
        title=title,
        task=MAZE,
        budget=budget,
        metrics=MAZE_METRICS,
        algorithms=algorithms,
        baseline="rpg",
        seeds=3,
        shared={member.label: "maze" for member in algorithms if member in MAZE_ALGORITHMS},
        **fields,
    )


_EXPERIMENTS = (
    Experiment(
        name="bandit",
        title="Bandit with a wide local and a narrow global optimum (RPGBandit-v0)",
        task=Task("RPGBandit-v0"),
        budget=40_000,
        metrics=(Metric("mean_reward", every=1000),),
        algorithms=(RPG, Algorithm("rpg_no_posterior", "rpg", {"beta": 0.0}), SAC, Algorithm("reinforce", "reinforce")),
        baseline="sac",
        seeds=20,
    ),
    Experiment(
        name="maze",
        title="Exploration of the maze without reward (RPGMaze-v0)",
        task=MAZE,
        budget=250_000,
        metrics=MAZE_METRICS,
        algorithms=MAZE_ALGORITHMS,
        baseline="mbsac_r",
        seeds=5,
        groups=(
            Group(
                "baselines",
                "RPG, the same without z (mbsac_r), SAC with the same bonus (sac_rnd), SAC, chance",
                ("rpg", "mbsac_r", "sac_rnd", "sac", *RANDOM_BASELINES),
            ),
            Group(
                "latent",
                "z: Gaussian (rpg), also with the paper's posterior term (no_baseline), categorical, none (mbsac_r)",
                ("rpg", "no_baseline", "rpg_categorical", "mbsac_r"),
            ),
            Group(
                "replay",
                "batches: uniform (rpg; without z: mbsac_r), a quarter by novelty (novelty_replay)",
                ("rpg", "novelty_replay", "mbsac_r"),
            ),
        ),
        milestones=(50_000, 120_000, 180_000, 240_000),
    ),
    Experiment(
        name="maze_sparse",
        title="Maze with a reward in its farthest room, five rooms away (RPGMazeSparse-v0)",
        task=MAZE_SPARSE,
        budget=250_000,
        metrics=(Metric("success", every=5000), Metric("coverage", every=5000)),
        algorithms=(RPG, RPG_CATEGORICAL, MBSAC_R, SAC_RND, SAC, RPG_UNIFORM),
        baseline="mbsac_r",
        seeds=5,
        milestones=(100_000, 150_000, 200_000),
    ),
    _part_of_maze(
        name="maze_100k",
        title="What matters in the maze without reward, 100,000 steps (RPGMaze-v0)",
        budget=100_000,
        algorithms=tuple(
            {member.label: member for _, members in _MAZE_GROUPS.values() for member in (RPG, *members)}.values()
        ),
        groups=tuple(
            Group(name, title, ("rpg", *(member.label for member in members)))
            for name, (title, members) in _MAZE_GROUPS.items()
        ),
        milestones=(50_000, 100_000),
    ),
    # Ten times the updates take ten times as long: at a smaller budget than the other ablations. They follow vector steps of
    # five environments
    _part_of_maze(
        name="maze_updates",
        title="Updates an environment step (rpg: 0.1), 30,000 steps of the maze without reward (RPGMaze-v0)",
        budget=30_000,
        algorithms=(
            RPG,
            _rpg("updates_0.2", train_freq=1, gradient_steps=1),
            _rpg("updates_0.5", train_freq=2, gradient_steps=5),
            _rpg("updates_1", train_freq=1, gradient_steps=5),
            SAC_RND,
        ),
        milestones=(10_000, 20_000, 30_000),
    ),
    Experiment(
        name="push",
        title="Push, a dense reward with a local optimum (RPGPointPush-v0)",
        task=PUSH,
        budget=150_000,
        metrics=(Metric("success", every=5000),),
        algorithms=(RPG, MBSAC, SAC, Algorithm("td3", "td3"), Algorithm("ppo", "ppo"), Algorithm("tqc", "tqc")),
        baseline="mbsac",
        seeds=5,
    ),
    Experiment(
        name="pendulum",
        title="Pendulum-v1",
        task=Task("Pendulum-v1"),
        budget=20_000,
        metrics=(Metric("return", every=2000, final_share=0.2),),
        algorithms=(RPG, RPG_PRECISE, SAC),
        baseline="sac",
        seeds=5,
    ),
    Experiment(
        name="halfcheetah",
        title="HalfCheetah-v5",
        task=Task("HalfCheetah-v5"),
        budget=20_000,
        metrics=(Metric("return", every=2500, final_share=0.2),),
        # RL Zoo has SAC act at random for 10,000 steps, which is meant for a budget of a million
        algorithms=(RPG, RPG_PRECISE, MBSAC_R, Algorithm("sac", "sac", {"learning_starts": 1000})),
        baseline="sac",
        seeds=5,
    ),
    _standard("HalfCheetah", MBSAC_R),
    *(_standard(task) for task in ("Hopper", "Walker2d", "Ant")),
    Experiment(
        name="cost",
        title="What training costs (HalfCheetah-v5)",
        task=Task("HalfCheetah-v5"),
        budget=5000,
        metrics=(Metric("return", every=5000, episodes=1),),
        algorithms=(
            RPG,
            Algorithm("mbsac", "rpg", {"latent": "none", "intrinsic_reward": "none"}),
            Algorithm("sac", "sac", {"learning_starts": 1000}),
        ),
        baseline="sac",
        seeds=3,
    ),
)

EXPERIMENTS = {experiment.name: experiment for experiment in _EXPERIMENTS}


def find_experiment(name: str) -> Experiment:
    """
    :param name: name of an experiment
    :return: the experiment
    :raises ValueError: if there is none of this name
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment={name!r} is unknown; there are {', '.join(sorted(EXPERIMENTS))}")
    return EXPERIMENTS[name]
