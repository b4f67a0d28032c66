"""What a policy of many modes gives: several solutions in one model, to look at, choose and reuse."""

from sb3_rpg.modes.choice import FixedLatent, best_latent, candidate_latents, latent_values, sample_latents

__all__ = ["FixedLatent", "best_latent", "candidate_latents", "latent_values", "sample_latents"]
