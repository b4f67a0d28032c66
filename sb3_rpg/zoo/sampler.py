"""
What RL Zoo's ``--optimize-hyperparameters`` tunes of RPG.

Written as RL Zoo's own samplers are: the sampler suggests, the converter turns a trial's parameters into arguments of RPG,
also when a trial is loaded from a study later (``--trial-id``). RL Zoo lets the result replace what the hyperparameter
file says, argument by argument. So nothing is tuned here that a task's description is part of, as the observation's
features in ``intrinsic_reward_kwargs`` are, or the features extractor in ``policy_kwargs``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

# Those that need no arguments of their own; "none" would be another algorithm, the baseline MBSAC
LATENTS = ("gaussian", "learned_gaussian", "categorical", "hypersphere")
DEFAULT_HORIZON, MAX_HORIZON = 3, 5


def sample_rpg_params(trial: "optuna.Trial", n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Sampler for RPG hyperparameters.

    :param trial: Optuna's trial
    :param n_actions: number of action dimensions; not used
    :param n_envs: number of training environments; not used
    :param additional_args: what RL Zoo tells about hindsight experience replay
    :return: arguments of RPG
    """
    sampled_params: dict[str, Any] = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 0.0001, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 0.002, log=True),
        "model_lr_factor": trial.suggest_float("model_lr_factor", 1.0, 10.0, log=True),
        # From 2**5=32 to 2**10=1024
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 10),
        # Polyak coeff
        "tau": trial.suggest_float("tau", 0.002, 0.3, log=True),
        # An update after 1 to 10 steps: the updates are what takes the time
        "train_freq": trial.suggest_int("train_freq", 1, 10),
        # Smaller: z is ignored; larger: modes are told apart but not used
        "beta": trial.suggest_float("beta", 1e-4, 0.05, log=True),
        "latent": trial.suggest_categorical("latent", LATENTS),
        "latent_dim": trial.suggest_int("latent_dim", 2, 24, log=True),
        "horizon": trial.suggest_int("horizon", 1, _max_horizon(trial)),
        # Of no effect without a bonus
        "novelty_share": trial.suggest_categorical("novelty_share", [0.0, 0.25]),
    }
    if "intrinsic_reward" not in trial.study.user_attrs:  # one that the file names has arguments of its own there
        sampled_params["intrinsic_reward"] = trial.suggest_categorical("intrinsic_reward", ["auto", "none"])
    if additional_args["using_her_replay_buffer"]:
        sampled_params["n_sampled_goal"] = trial.suggest_int("n_sampled_goal", 1, 5)
        sampled_params["goal_selection_strategy"] = trial.suggest_categorical(
            "goal_selection_strategy", ["final", "episode", "future"]
        )

    # Display true values
    trial.set_user_attr("gamma", 1 - sampled_params["one_minus_gamma"])
    trial.set_user_attr("batch_size", 2 ** sampled_params["batch_size_pow"])
    params = convert_rpg_params(sampled_params)
    if additional_args["using_her_replay_buffer"]:
        # What the file says beside: it is replaced as a whole
        params["replay_buffer_kwargs"] = {**additional_args["her_kwargs"], **params["replay_buffer_kwargs"]}
    return params


def convert_rpg_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the parameters of a trial into arguments of RPG.

    :param sampled_params: the parameters, as :func:`sample_rpg_params` suggests them
    :return: arguments of RPG
    """
    hyperparams = sampled_params.copy()
    hyperparams["gamma"] = 1 - hyperparams.pop("one_minus_gamma")
    hyperparams["batch_size"] = 2 ** hyperparams.pop("batch_size_pow")
    # One update each time, whatever the file says: train_freq alone sets how many updates there are for a step
    hyperparams["gradient_steps"] = 1
    # Arguments that the file has for one kind and width of latent do not fit another
    hyperparams["latent_kwargs"] = {}
    hyperparams["latent_target_entropy"] = "auto"
    if "n_sampled_goal" in hyperparams:
        hyperparams["replay_buffer_kwargs"] = {
            key: hyperparams.pop(key) for key in ("n_sampled_goal", "goal_selection_strategy")
        }
    return hyperparams


def _max_horizon(trial: "optuna.Trial") -> int:
    # RPG refuses a horizon longer than an episode. RL Zoo tells a sampler nothing about the environment, but notes the
    # file's settings in the study, as text: a horizon below the default there may mean that episodes can be that short
    horizon = str(trial.study.user_attrs.get("horizon", ""))
    return int(horizon) if horizon.isdecimal() and int(horizon) < DEFAULT_HORIZON else MAX_HORIZON
