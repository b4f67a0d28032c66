"""What a policy of many modes gives: several solutions in one model, to look at, choose and reuse."""

from sb3_rpg.modes.adaptation import Adaptation, adapt, mode_latents, spread_latents, successive_halving
from sb3_rpg.modes.callback import ModesCallback
from sb3_rpg.modes.choice import FixedLatent, best_latent, candidate_latents, latent_values, sample_latents
from sb3_rpg.modes.clusters import (
    Diversity,
    Mode,
    diversity,
    effective_mode_count,
    embed_paths,
    find_modes,
    path_spread,
    stretch_means,
)
from sb3_rpg.modes.projection import Projection, action_paths, principal_paths
from sb3_rpg.modes.slices import LatentSlice, slice_latents
from sb3_rpg.modes.trajectories import Descriptor, Trajectory, roll_out

__all__ = [
    "Adaptation",
    "Descriptor",
    "Diversity",
    "FixedLatent",
    "LatentSlice",
    "Mode",
    "ModesCallback",
    "Projection",
    "Trajectory",
    "action_paths",
    "adapt",
    "best_latent",
    "candidate_latents",
    "diversity",
    "effective_mode_count",
    "embed_paths",
    "find_modes",
    "latent_values",
    "mode_latents",
    "path_spread",
    "principal_paths",
    "roll_out",
    "sample_latents",
    "slice_latents",
    "spread_latents",
    "stretch_means",
    "successive_halving",
]
