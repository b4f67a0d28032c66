"""z as one of several categories."""

import math

import torch as th
from torch.nn import functional as F

from sb3_rpg.latents.base import LatentSpace, Temperature, is_number, positive_int


class CategoricalLatent(LatentSpace):
    """
    One of ``dim`` categories, one-hot; pi(z|s1) = softmax(q(s1, .) / alpha_z) with q regressed on the value estimate of
    each z. p_phi's probabilities are mixed with a uniform distribution, which bounds the penalty of a wrong guess.

    :param dim: number of categories
    :param uniform_mix: share of the uniform distribution in p_phi (the paper's code: 0.2)
    :raises ValueError: if ``dim`` is below 1 or ``uniform_mix`` is outside [0, 1)
    """

    def __init__(self, dim: int = 12, uniform_mix: float = 0.2):
        if not (is_number(uniform_mix) and 0.0 <= uniform_mix < 1.0):
            raise ValueError(f"`uniform_mix` must be a number in [0, 1), got {uniform_mix!r}")
        self.name = "categorical"
        self.dim = self.policy_dim = self.posterior_dim = self.n_categories = positive_int("latent_dim", dim)
        self.uniform_mix = uniform_mix

    def _log_probs(self, params: th.Tensor, temperature: Temperature) -> th.Tensor:
        # Without temperature, pi(z|s1) is the category of the highest value
        return F.log_softmax(params / th.as_tensor(temperature).clamp_min(1e-6), dim=-1)

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        assert params is not None, "a categorical latent needs the outputs of pi(z|s1)"
        index = th.multinomial(self._log_probs(params, temperature).exp(), 1).squeeze(-1)
        return F.one_hot(index, self.dim).to(th.float32)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        assert params is not None, "a categorical latent needs the outputs of pi(z|s1)"
        return (self._log_probs(params, temperature) * z).sum(dim=-1)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        assert params is not None, "a categorical latent needs the outputs of pi(z|s1)"
        log_probs = self._log_probs(params, temperature)
        return -(log_probs.exp() * log_probs).sum(dim=-1)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        probs = (1.0 - self.uniform_mix) * F.softmax(outputs, dim=-1) + self.uniform_mix / self.dim
        return (probs * z).sum(dim=-1).clamp_min(1e-30).log()

    @property
    def best_posterior_log_prob(self) -> float:
        return math.log(1.0 - self.uniform_mix + self.uniform_mix / self.dim)

    @property
    def default_target_entropy(self) -> float:
        return 0.9 * math.log(self.dim)

    @property
    def entropy_range(self) -> tuple[float, float]:
        return 0.0, math.log(self.dim)

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return (outputs.argmax(dim=-1) == z.argmax(dim=-1)).to(th.float32).mean()

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        assert params is not None, "a categorical latent needs the outputs of pi(z|s1)"
        return F.one_hot(params.argmax(dim=-1), self.dim).to(th.float32)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return th.eye(self.dim, device=noise.device).unsqueeze(1).expand(-1, n, -1)
