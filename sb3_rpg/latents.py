"""
Latent spaces: what z is, how it is drawn, and how well (s, a) tells it.

A latent space is a description without parameters of its own. It is asked for z's prior or policy pi(z|s1), given the raw
outputs of a network on s1, and for the posterior p_phi(z|s,a), given the raw outputs of a network on (s, a); which
networks those are is the policy's business (``LatentSpace.policy_dim`` and ``LatentSpace.posterior_dim`` are the widths
that it must provide). Every z is a float32 vector of ``LatentSpace.dim`` numbers, so that buffers, policies and values
need not know its kind.
"""

import math
from abc import ABC, abstractmethod
from numbers import Integral, Real

import torch as th
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)
#: alpha_z, a number or a 0-d tensor
Temperature = float | th.Tensor


def _positive_int(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}; use latent='none' for a policy without z")
    return int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _positive_float(name: str, value: float) -> float:
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be a positive number, got {value!r}")
    return float(value)


class LatentSpace(ABC):
    """
    Interface of all latent spaces.

    ``params`` below are the raw outputs (batch, ``policy_dim``) of the network of pi(z|s1), or None where ``policy_dim``
    is 0 (fixed prior); ``outputs`` are the raw outputs (..., ``posterior_dim``) of the network of p_phi(z|s,a).
    """

    name: str
    #: width of z
    dim: int
    #: width of the network of pi(z|s1); 0 where the prior is fixed
    policy_dim: int = 0
    #: width of the network of p_phi(z|s,a)
    posterior_dim: int
    #: number of leading entries of ``params`` that are value estimates q(s1, c) of the categories
    n_categories: int = 0

    @abstractmethod
    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        """
        Draw z from pi(z|s1), reparameterised where z is continuous and learned.

        :param n: batch size
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z, for spaces with categories: pi(c|s1) = softmax(q(s1, .) / alpha_z)
        :param device: where to draw when there are no ``params``
        :return: (n, dim), float32
        """

    @abstractmethod
    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        """
        :param z: (n, dim)
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z
        :return: log pi(z|s1), (n,)
        """

    @abstractmethod
    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        """
        :return: entropy of pi(z|s1) in nats, (n,); differential where z is continuous
        """

    @abstractmethod
    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        """
        :param outputs: (..., posterior_dim)
        :param z: (..., dim)
        :return: log p_phi(z|s,a), (...)
        """

    def posterior_baseline(self, z: th.Tensor) -> th.Tensor:
        """
        log p_phi(z|s,a) of a posterior that knows nothing, whose outputs are 0, where z is drawn from a fixed prior.

        What is learned by choice of z must not have it taken off: a learned Gaussian would grow without bound, and values
        above 0 would have pi(z|s1) settle on the category that it happens to draw first.

        :param z: (..., dim)
        :return: (...); 0 for a learned pi(z|s1)
        """
        if self.policy_dim > 0:
            return z.new_zeros(z.shape[:-1], dtype=th.float32)
        return self.posterior_log_prob(z.new_zeros(*z.shape[:-1], self.posterior_dim, dtype=th.float32), z)

    @abstractmethod
    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        """
        How well (s, a) tells z, from 0 (as good as the prior) to 1 (perfectly): the share of right categories, the share
        of z's variance that is explained, or the cosine on the sphere.

        :return: 0-d tensor
        """

    @property
    def best_posterior_log_prob(self) -> float:
        """log p_phi(z|s,a) of a posterior that knows z, the most that the beta term can pay; NaN: not known."""
        return math.nan

    @property
    def default_target_entropy(self) -> float:
        """
        Entropy in nats that a learned pi(z|s1) is held at where nothing else is asked for: that of N(0, 1), and nine tenths
        of the most that categories can have. NaN: not known, the prior is fixed.
        """
        return math.nan

    @abstractmethod
    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        """
        :param n: batch size
        :param params: (n, policy_dim) or None
        :param device: where to make it when there are no ``params``
        :return: the most probable z of pi(z|s1), (n, dim); where all are as probable, always the same one
        """

    @abstractmethod
    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        """
        Alternatives to choose the best z from, a fixed set for a fixed ``params``.

        :param n: batch size
        :param params: (n, policy_dim) or None
        :param temperature: alpha_z
        :param noise: (n_candidates, dim) standard Normal numbers, the same at every call
        :return: (n_alternatives, n, dim)
        """


class GaussianLatent(LatentSpace):
    """
    z ~ N(0, 1), fixed (the paper's choice for sparse rewards, Appendix A), or a learned diagonal Normal pi(z|s1).

    p_phi(z|s,a) is a Normal with a fixed std; its log-probability is summed over dimensions.

    :param dim: width of z
    :param learned: learn mean and std of pi(z|s1)
    :param posterior_std: standard deviation of p_phi (the paper's code: 0.38 to 0.40)
    :raises ValueError: if ``dim`` is below 1 or ``posterior_std`` is not positive
    """

    def __init__(self, dim: int = 12, learned: bool = False, posterior_std: float = 0.4):
        self.name = "learned_gaussian" if learned else "gaussian"
        self.dim = self.posterior_dim = _positive_int("latent_dim", dim)
        self.learned = learned
        self.policy_dim = 2 * self.dim if learned else 0
        self.posterior_std = _positive_float("posterior_std", posterior_std)

    def _mean_log_std(self, params: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        mean, log_std = params.chunk(2, dim=-1)
        # Bounded, so that a few bad gradients can neither collapse pi(z|s1) nor leave what the networks have seen
        return mean, -3.0 + 4.0 * th.sigmoid(log_std + math.log(3.0))

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        if params is None:
            return th.randn(n, self.dim, device=device)
        mean, log_std = self._mean_log_std(params)
        return mean + log_std.exp() * th.randn_like(mean)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        if params is None:
            return (-0.5 * z.square() - 0.5 * LOG_2PI).sum(dim=-1)
        mean, log_std = self._mean_log_std(params)
        return (-0.5 * ((z - mean) * (-log_std).exp()).square() - log_std - 0.5 * LOG_2PI).sum(dim=-1)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        constant = 0.5 * self.dim * (1.0 + LOG_2PI)
        if params is None:
            return th.full((n,), constant, device=device)
        return self._mean_log_std(params)[1].sum(dim=-1) + constant

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        error = (z - outputs) / self.posterior_std
        return -0.5 * error.square().sum(dim=-1) + self.best_posterior_log_prob

    @property
    def best_posterior_log_prob(self) -> float:
        return -self.dim * (math.log(self.posterior_std) + 0.5 * LOG_2PI)

    @property
    def default_target_entropy(self) -> float:
        return 0.5 * self.dim * (1.0 + LOG_2PI)

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        variance = z.flatten(0, -2).var(dim=0, correction=0).mean().clamp_min(1e-8)
        return (1.0 - (z - outputs).square().mean() / variance).clamp_min(0.0)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.zeros(n, self.dim, device=device) if params is None else self._mean_log_std(params)[0]

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        if params is None:
            return noise.unsqueeze(1).expand(-1, n, -1)
        mean, log_std = self._mean_log_std(params)
        return mean + log_std.exp() * noise.unsqueeze(1)


class CategoricalLatent(LatentSpace):
    """
    One of ``dim`` categories, one-hot; pi(z|s1) = softmax(q(s1, .) / alpha_z) with q regressed on the value estimate of
    each z. p_phi's probabilities are mixed with a uniform distribution, which bounds the penalty of a wrong guess.

    :param dim: number of categories
    :param uniform_mix: share of the uniform distribution in p_phi (the paper's code: 0.2)
    :raises ValueError: if ``dim`` is below 1 or ``uniform_mix`` is outside [0, 1)
    """

    def __init__(self, dim: int = 12, uniform_mix: float = 0.2):
        if not (_is_number(uniform_mix) and 0.0 <= uniform_mix < 1.0):
            raise ValueError(f"`uniform_mix` must be a number in [0, 1), got {uniform_mix!r}")
        self.name = "categorical"
        self.dim = self.policy_dim = self.posterior_dim = self.n_categories = _positive_int("latent_dim", dim)
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

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return (outputs.argmax(dim=-1) == z.argmax(dim=-1)).to(th.float32).mean()

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        assert params is not None, "a categorical latent needs the outputs of pi(z|s1)"
        return F.one_hot(params.argmax(dim=-1), self.dim).to(th.float32)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return th.eye(self.dim, device=noise.device).unsqueeze(1).expand(-1, n, -1)


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
        self.categorical = CategoricalLatent(_positive_int("n_categories", n_categories), uniform_mix)
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


class HypersphereLatent(LatentSpace):
    """
    z uniform on the unit hypersphere in ``dim`` dimensions; p_phi is a von Mises-Fisher distribution of fixed
    concentration around the normalised output. Bounded, without the Gaussian's empty centre: not in the paper.

    :param dim: number of dimensions of the space that the sphere lies in, at least 2
    :param concentration: kappa of the von Mises-Fisher distribution; 6.25 has, near its centre, the spread of a
        Normal of std 0.4, the paper's posterior
    :raises ValueError: if ``dim`` is below 2 or ``concentration`` is not positive
    """

    def __init__(self, dim: int = 12, concentration: float = 6.25):
        self.name = "hypersphere"
        self.dim = self.posterior_dim = _positive_int("latent_dim", dim)
        if self.dim < 2:
            raise ValueError(f"`latent_dim` must be at least 2 on the hypersphere, got {dim!r}; use latent='gaussian' for 1")
        self.concentration = _positive_float("concentration", concentration)
        self._log_area = math.log(2.0) + 0.5 * self.dim * math.log(math.pi) - math.lgamma(0.5 * self.dim)
        self._log_normalizer = von_mises_fisher_log_normalizer(self.dim, self.concentration)

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return F.normalize(th.randn(n, self.dim, device=device), dim=-1)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        return th.full(z.shape[:-1], -self._log_area, device=z.device)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.full((n,), self._log_area, device=device)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        cosine = (F.normalize(outputs, dim=-1, eps=1e-6) * z).sum(dim=-1)
        return self.concentration * cosine + self._log_normalizer

    @property
    def best_posterior_log_prob(self) -> float:
        return self.concentration + self._log_normalizer

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return F.cosine_similarity(outputs, z, dim=-1, eps=1e-6).mean().clamp_min(0.0)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.eye(1, self.dim, device=device).expand(n, -1)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return F.normalize(noise, dim=-1).unsqueeze(1).expand(-1, n, -1)


class NoLatent(LatentSpace):
    """No z: with it RPG is MBSAC, the paper's model-based baseline. All terms in z vanish."""

    name = "none"
    dim = posterior_dim = policy_dim = 0

    def sample(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.zeros(n, 0, device=device)

    def log_prob(self, z: th.Tensor, params: th.Tensor | None, temperature: Temperature) -> th.Tensor:
        return th.zeros(z.shape[:-1], device=z.device)

    def entropy(self, n: int, params: th.Tensor | None, temperature: Temperature, device: th.device) -> th.Tensor:
        return th.zeros(n, device=device)

    def posterior_log_prob(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return th.zeros(z.shape[:-1], device=z.device)

    @property
    def best_posterior_log_prob(self) -> float:
        return 0.0

    def posterior_accuracy(self, outputs: th.Tensor, z: th.Tensor) -> th.Tensor:
        return th.zeros((), device=z.device)

    def mode(self, n: int, params: th.Tensor | None, device: th.device) -> th.Tensor:
        return th.zeros(n, 0, device=device)

    def candidates(self, n: int, params: th.Tensor | None, temperature: Temperature, noise: th.Tensor) -> th.Tensor:
        return th.zeros(1, n, 0, device=noise.device)


def von_mises_fisher_log_normalizer(dim: int, concentration: float) -> float:
    """
    log C_d(kappa) of the von Mises-Fisher density C_d(kappa) exp(kappa mu.z) on the unit sphere in R^d.

    The modified Bessel function is summed as a series in log space, exact to double precision for any ``dim``.

    :param dim: d, at least 2
    :param concentration: kappa, positive
    :return: log C_d(kappa)
    """
    order = 0.5 * dim - 1.0
    log_half = math.log(0.5 * concentration)
    n_terms = 32 + int(2 * concentration)
    terms = [(2 * m + order) * log_half - math.lgamma(m + 1) - math.lgamma(m + order + 1) for m in range(n_terms)]
    largest = max(terms)
    log_bessel = largest + math.log(sum(math.exp(term - largest) for term in terms))
    return order * math.log(concentration) - 0.5 * dim * LOG_2PI - log_bessel


LATENT_SPACES = ("gaussian", "learned_gaussian", "categorical", "mixed", "hypersphere", "none")


def make_latent_space(latent: str | LatentSpace, latent_dim: int = 12, **kwargs: float) -> LatentSpace:
    """
    :param latent: a latent space, or the name of one: ``LATENT_SPACES``
    :param latent_dim: width of z; number of categories for "categorical"; number of continuous dimensions for "mixed";
        ignored for "none" and when ``latent`` is a latent space already
    :param kwargs: further arguments of the space's class
    :return: the latent space
    :raises ValueError: if the name is unknown or an argument is out of its range
    """
    if isinstance(latent, LatentSpace):
        return latent
    if latent == "none":
        return NoLatent()
    try:
        if latent in ("gaussian", "learned_gaussian"):
            return GaussianLatent(latent_dim, learned=latent == "learned_gaussian", **kwargs)
        if latent == "categorical":
            return CategoricalLatent(latent_dim, **kwargs)
        if latent == "mixed":
            return MixedLatent(latent_dim, **kwargs)  # type: ignore[arg-type]
        if latent == "hypersphere":
            return HypersphereLatent(latent_dim, **kwargs)
    except TypeError as error:
        raise ValueError(f"`latent_kwargs`={kwargs!r} do not fit latent={latent!r}: {error}") from error
    raise ValueError(f"`latent` must be one of {', '.join(LATENT_SPACES)} or a LatentSpace, got {latent!r}")
