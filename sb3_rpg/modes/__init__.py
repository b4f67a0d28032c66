"""What a policy of many modes gives: several solutions in one model, to look at, choose and reuse."""

from sb3_rpg.modes.callback import ModesCallback
from sb3_rpg.modes.choice import FixedLatent, best_latent, candidate_latents, latent_values, sample_latents
from sb3_rpg.modes.clusters import Diversity, Mode, diversity, effective_mode_count, embed_paths, find_modes, path_spread
from sb3_rpg.modes.trajectories import Descriptor, Trajectory, roll_out

__all__ = [
    "Descriptor",
    "Diversity",
    "FixedLatent",
    "Mode",
    "ModesCallback",
    "Trajectory",
    "best_latent",
    "candidate_latents",
    "diversity",
    "effective_mode_count",
    "embed_paths",
    "find_modes",
    "latent_values",
    "path_spread",
    "roll_out",
    "sample_latents",
]
