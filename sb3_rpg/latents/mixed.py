"""z of a category and Normal numbers."""

import torch as th

from sb3_rpg.latents.base import LatentSpace, Temperature, positive_int
from sb3_rpg.latents.categorical import CategoricalLatent
from sb3_rpg.latents.gaussian import GaussianLatent


class MixedLatent(LatentSpace):
    """
    A category and, beside it, an independent Gaussian: z = (one-hot of ``n_categories``, ``dim`` Normal numbers).

    The category is learned as in :class:`CategoricalLatent`, the Gaussian part keeps the fixed N(0, 1) prior; p_phi is the
    product of both posteriors.

    :param dim: number of continuous dimensions
    :param n_categories: number of categories
    :param posterior_std: see :class:`GaussianLatent`
    :param uniform_mix: see :class:`CategoricalLatent`
    :raises ValueError: if a number of dimensions or categories is below 1
    """

    def __init__(self, dim: int = 6, n_categories: int = 6, posterior_std: float = 0.4, uniform_mix: float = 0.2):
        self.categorical = CategoricalLatent(positive_int("n_categories", n_categories), uniform_mix)
        self.gaussian = GaussianLatent(dim, posterior_std=posterior_std)
        self.name = "mixed"
        self.n_categories = self.policy_dim = self.categorical.dim
        self.dim = self.posterior_dim = self.categorical.dim + self.gaussian.dim

    def _split(self, x: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return x[..., : self.n_categories], x[..., self.n_categories :]

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        category = self.categorical.sample(n, params, temperature, device)
        return th.cat([category, self.gaussian.sample(n, None, temperature, device)], dim=-1)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        category, gaussian = self._split(z)
        return self.categorical.log_prob(category, params, temperature) + self.gaussian.log_prob(gaussian, None, temperature)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        category = self.categorical.entropy(n, params, temperature, device)
        return category + self.gaussian.entropy(n, None, temperature, device)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        (logits, mean), (category, gaussian) = self._split(outputs), self._split(z)
        return self.categorical.posterior_log_prob(logits, category) + self.gaussian.posterior_log_prob(mean, gaussian)

    def posterior_baseline(self, z: th.Tensor) -> th.Tensor:
        return self.gaussian.posterior_baseline(self._split(z)[1])

    @property
    def best_posterior_log_prob(self) -> float:
        return self.categorical.best_posterior_log_prob + self.gaussian.best_posterior_log_prob

    @property
    def default_target_entropy(self) -> float:
        return self.categorical.default_target_entropy + self.gaussian.default_target_entropy

    @property
    def entropy_range(self) -> tuple[float, float]:
        (least, most), (fixed, _) = self.categorical.entropy_range, self.gaussian.entropy_range
        return fixed + least, fixed + most

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        (logits, mean), (category, gaussian) = self._split(outputs), self._split(z)
        discrete = self.categorical.posterior_accuracy(logits, category)
        return 0.5 * (discrete + self.gaussian.posterior_accuracy(mean, gaussian))

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.cat([self.categorical.mode(n, params, device), self.gaussian.mode(n, None, device)], dim=-1)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        categories = self.categorical.candidates(n, params, temperature, noise)
        # Every category is tried, the Gaussian parts are dealt out to them in turn
        index = th.arange(max(len(noise), len(categories)), device=noise.device)
        gaussian = noise[index % len(noise), self.n_categories :].unsqueeze(1).expand(-1, n, -1)
        return th.cat([categories[index % len(categories)], gaussian], dim=-1)
