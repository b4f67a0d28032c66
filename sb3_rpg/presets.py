"""Named sets of arguments."""

from typing import Any

from torch import nn

#: Table 1 and Appendix A of the paper. To be used with five environments, as the paper's updates follow vector steps. The
#: encodings of the observation (``intrinsic_reward_kwargs``) are chosen by task in the paper, here the raw observation is
#: scaled by 0.05, its most common choice.
PAPER: dict[str, Any] = {
    "learning_rate": 3e-4,
    "buffer_size": 800_000,
    "learning_starts": 1000,
    "batch_size": 512,
    "tau": 0.005,
    "gamma": 0.99,
    "train_freq": 1,
    "gradient_steps": 1,
    "ent_coef": "auto_0.01",
    "model_lr_factor": 1.0,
    "ent_coef_lr_factor": 1.0,
    "target_update_interval": 2,
    "target_entropy": "auto",
    "latent": "gaussian",
    "latent_dim": 12,
    "latent_kwargs": {"posterior_std": 0.4},
    "latent_ent_coef": 1.0,
    "beta": 0.005,
    "posterior_baseline": False,
    "latent_relabel": 0.0,
    "horizon": 3,
    "target_horizon": 3,
    "head_steps": None,
    "value_weight_decay": 0.97,
    "policy_delay": 2,
    "loss_weights": {"consistency": 1000.0, "reward": 0.5, "value": 0.5, "termination": 0.0},
    "max_grad_norm": 1.0,
    "entropy_in_target": False,
    "reward_scale": 1.0,
    "intrinsic_reward": "rnd",
    "intrinsic_reward_kwargs": {"normalize": False, "obs_scale": 0.05, "scale": 0.1},
    "intrinsic_batch_size": 512,
    "novelty_share": 0.0,
    "precision": "fp32",
    "policy_kwargs": {"activation_fn": nn.ELU},
}

PRESETS: dict[str, dict[str, Any]] = {"paper": PAPER}
