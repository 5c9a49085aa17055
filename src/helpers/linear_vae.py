"""The linear VAE: its ELBO in closed form, gradients, best encoder, posterior gap, and a fit by ascent.

Serves chapters 03 (Eqs 9 and 13), 04 (Eqs 14-22) and 05 (Eqs 23-27, Theorem 1). `beta` weighs the KL term
everywhere: 1 is the ELBO. Every quantity is an average per sample, in nats, and needs only the moments; what
rounding of the covariance might decide is refused: "below rounding".
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from helpers._validation import finite_array, instance, integer, non_negative, positive, refuse_below_rounding, weighed
from helpers.moments import LARGEST, Moments, svd
from helpers.ppca import PPCA, refuse_no_residual

PATIENCE = 30  # `fit` stops when this many updates have not raised the objective beyond rounding,
MAX_UPDATES = 20_000  # and gives up after so many


class Terms(NamedTuple):
    """The two terms of the ELBO (Eq. 4), averaged over the data.

    Attributes
    ----------
    kl : float
        KL(q(z | x) || p(z)), in nats (Eq. 15).
    reconstruction : float
        Expected log p(x | z) under q, in nats (Eqs 18-19).
    """

    kl: float
    reconstruction: float


class Gradients(NamedTuple):
    """Derivatives of the (beta-)ELBO, in nats per unit of what they are taken in.

    Attributes
    ----------
    W : (n, k) ndarray
    V : (k, n) ndarray
    D : (k,) ndarray
    sigma2 : float
    """

    W: np.ndarray
    V: np.ndarray
    D: np.ndarray
    sigma2: float


@dataclass(frozen=True, eq=False)
class LinearVAE:
    """The model p(x | z) = N(W z + mu, sigma2 I) with the encoder q(z | x) = N(V (x - mu), diag(D)) (Eq. 9).

    Parameters
    ----------
    W : (n, k) array_like, 1 <= k <= n
        Decoder.
    V : (k, n) array_like
        Encoder.
    D : (k,) array_like
        Encoder variances, above 0: the diagonal of the paper's matrix D.
    mu : (n,) array_like
    sigma2 : float
        Variance of the observation noise, above 0.

    See Also
    --------
    fit : the one of highest ELBO.
    optimal_encoder : the V and D that are best for a W.
    helpers.ppca.PPCA : the decoder's model without an encoder.
    """

    W: np.ndarray
    V: np.ndarray
    D: np.ndarray
    mu: np.ndarray
    sigma2: float

    def __post_init__(self):
        model = PPCA(self.W, self.mu, self.sigma2)
        n, k = model.W.shape
        D = finite_array("D", self.D, (k,))
        if D.min() <= 0:
            raise ValueError(f"D has the entry {D.min()}; expected variances above 0")
        V = finite_array("V", self.V, (k, n))
        checked = {"W": model.W, "V": V, "D": D, "mu": model.mu, "sigma2": model.sigma2}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def terms(self, moments):
        """KL to the prior (Eq. 15) and expected log likelihood (Eqs 18-19), averaged over the data.

        `moments` is all the data needed: for any A, the average of |A (x - mu)|^2 is |A Q|^2, where Q Q^T is
        the average of (x - mu)(x - mu)^T. A sum of squares stays exact when sigma2 is tiny, where the
        expanded traces of Eqs 18-19 would cancel.

        Parameters
        ----------
        moments : Moments

        Returns
        -------
        Terms
        """
        Q = _deviations(moments, self.mu)
        means = self.V @ Q  # (k, rank + 1)
        error = ((Q - self.W @ means) ** 2).sum() + (self.W**2 @ self.D).sum()  # E|x - mu - W z|^2
        kl = ((means**2).sum() + (self.D - 1 - np.log(self.D)).sum()) / 2
        self._refuse_below_rounding(moments, Q, error / self.sigma2 + (means**2).sum())
        reconstruction = -(error / self.sigma2 + self.mu.size * np.log(2 * np.pi * self.sigma2)) / 2
        return Terms(float(kl), float(reconstruction))

    def elbo(self, moments, beta=1.0):
        """Average of reconstruction - beta KL, in nats; with `beta` = 1 the ELBO (Eq. 4).

        Parameters
        ----------
        moments : Moments
        beta : float
            Weight of the KL term, from 0.

        Returns
        -------
        float

        Examples
        --------
        With the best encoder the ELBO is the log likelihood of the decoder's model, as W has but one column.

        >>> moments = Moments([0, 0], [[2, 0], [0, 1]], count=10)
        >>> V, D = optimal_encoder([[1.0], [0.0]], sigma2=1.0)
        >>> model = LinearVAE(W=[[1.0], [0.0]], V=V, D=D, mu=[0, 0], sigma2=1.0)
        >>> round(model.elbo(moments), 4), round(model.log_likelihood(moments), 4)
        (-3.1845, -3.1845)
        """
        terms = self.terms(moments)
        return terms.reconstruction - non_negative("beta", beta) * terms.kl

    def gradients(self, moments, beta=1.0):
        """Derivatives of `elbo`: Eqs 20-22 with N = 1, and the one for sigma2 that the paper leaves out.

        Parameters
        ----------
        moments : Moments
        beta : float
            Weight of the KL term, from 0.

        Returns
        -------
        Gradients
        """
        beta = non_negative("beta", beta)
        W, V, D, s = self.W, self.V, self.D, self.sigma2
        Q = _deviations(moments, self.mu)
        means = V @ Q
        residual = Q - W @ means
        squares = (W**2).sum(axis=0)  # the diagonal of W^T W
        error = (residual**2).sum() + squares @ D
        self._refuse_below_rounding(moments, Q, error / s + (means**2).sum())
        return Gradients(
            W=(residual @ means.T - W * D) / s,
            V=(W.T @ residual / s - beta * means) @ Q.T,
            D=(beta * (1 / D - 1) - squares / s) / 2,
            sigma2=float((error / s - W.shape[0]) / (2 * s)),
        )

    def log_likelihood(self, moments):
        """Average log p(x) of the decoder's model (Eq. 5), which the ELBO bounds from below.

        Parameters
        ----------
        moments : Moments

        Returns
        -------
        float
            In nats per sample.
        """
        return PPCA(self.W, self.mu, self.sigma2).log_likelihood(moments)

    def _refuse_below_rounding(self, moments, Q, size):
        # What rounding of S can hide, passed through the model as Q is in `terms`.
        hidden = np.diag(moments.hidden)
        means = self.V * moments.hidden
        doubt = ((hidden - self.W @ means) ** 2).sum() / self.sigma2 + (means**2).sum()
        refuse_below_rounding(doubt, size + self.mu.size, self.sigma2, Q)


def _deviations(moments, mu):
    """Q (n, rank + 1) with Q Q^T the average of (x - mu)(x - mu)^T: a root of S, and what mu misses."""
    if instance("moments", moments, Moments).mean.size != mu.size:
        raise ValueError(f"moments has n = {moments.mean.size}; expected n = {mu.size} as in W")
    return np.column_stack([moments.root, moments.mean - mu])


def _decoder(W, n="n"):
    return finite_array("W", W, (n, "k"), largest=LARGEST**0.5)


def optimal_encoder(W, sigma2, beta=1.0):
    """The encoder that maximises the (beta-)ELBO for a decoder, whatever the data (Eqs 20-21).

    V = (W^T W + beta sigma2 I)^-1 W^T and D = beta sigma2 / (diag(W^T W) + beta sigma2). At `beta` = 1, V
    gives the mean of the true posterior, and D the inverse of the diagonal of its precision.

    Parameters
    ----------
    W : (n, k) array_like
    sigma2, beta : float
        Above 0.

    Returns
    -------
    V : (k, n) ndarray
    D : (k,) ndarray

    See Also
    --------
    posterior_gap : what a diagonal encoder costs all the same.
    helpers.bernoulli.optimal_encoder : for binary data, sample by sample.

    Examples
    --------
    >>> V, D = optimal_encoder([[1.0, 0.0], [0.0, 0.0]], sigma2=1.0)
    >>> abs(V).round(4).tolist(), D.round(4).tolist()  # the second latent has collapsed: q is the prior, whatever x
    ([[0.5, 0.0], [0.0, 0.0]], [0.5, 1.0])
    """
    W = _decoder(W)
    theta = weighed(sigma2, beta)
    U, l, Rt = svd(W)  # W^T W + theta I, once formed, would have lost a small theta
    V = Rt.T @ ((l / (l**2 + theta))[:, None] * U.T)
    return V, theta / ((W**2).sum(axis=0) + theta)


def posterior_gap(W, sigma2):
    """KL from the best diagonal encoder to the true posterior, log p - ELBO (Eq. 26), a float, 0 or more.

    Half of sum_i log M_ii - log det M, with M = W^T W + sigma2 I. M is A^T A for A = [W; sigma I], so this is
    Hadamard's inequality: each column of A counts by how much of it lies along the columns before it. Reading
    that part off A = Q R keeps all digits at any sigma2; the two logarithms would cancel.

    Parameters
    ----------
    W : (n, k) array_like
    sigma2 : float
        Above 0.

    Examples
    --------
    >>> round(posterior_gap([[1.0, 0.0], [0.0, 1.0]], sigma2=1.0), 4)  # orthogonal columns
    0.0
    >>> round(posterior_gap([[1.0, 1.0], [0.0, 0.0]], sigma2=1.0), 4)  # parallel ones: log(4 / 3) / 2
    0.1438
    """
    W = _decoder(W)
    A = np.vstack([W, np.sqrt(positive("sigma2", sigma2)) * np.eye(W.shape[1])])
    R = np.linalg.qr(A / np.linalg.norm(A, axis=0), mode="r")
    along = (np.triu(R, 1) ** 2).sum(axis=0)
    # Both forms are log |R_ii|: the first keeps its digits for nearly orthogonal columns, the second for
    # nearly parallel ones.
    log_diagonal = np.where(along < 0.5, np.log1p(-np.minimum(along, 0.5)) / 2, np.log(np.abs(np.diag(R))))
    return float(-log_diagonal.sum()) + 0.0  # not -0.0


def profile_elbo(W, moments, sigma2, beta=1.0):
    """The (beta-)ELBO of a decoder with its best encoder and mu at the mean, a float.

    At `beta` = 1 it is log p - posterior gap.

    Parameters
    ----------
    W : (n, k) array_like
    moments : Moments
    sigma2, beta : float
        Above 0.

    See Also
    --------
    profile_gradient : its gradient.
    """
    W = _decoder(W, instance("moments", moments, Moments).mean.size)
    V, D = optimal_encoder(W, sigma2, beta)
    return LinearVAE(W, V, D, moments.mean, sigma2).elbo(moments, beta)


def profile_gradient(W, moments, sigma2, beta=1.0):
    """Gradient of `profile_elbo` in W: beta (C^-1 S C^-1 W - W Mt^-1), with beta sigma2 in C and Mt.

    C = W W^T + beta sigma2 I, and Mt = diag(W^T W) + beta sigma2 I. It takes the place of Eq. 10, whose last
    term has W M^-1 with the full M.

    Parameters
    ----------
    W : (n, k) array_like
    moments : Moments
    sigma2, beta : float
        Above 0.

    Returns
    -------
    (n, k) ndarray
        In nats per unit of W.
    """
    W = _decoder(W, instance("moments", moments, Moments).mean.size)
    model, beta = PPCA(W, moments.mean, weighed(sigma2, beta)), positive("beta", beta)
    model.average_mahalanobis(moments)  # refuses what rounding could decide
    PW = model.solve_W()
    pull = model.solve(moments.covariance @ PW)
    return beta * (pull - W / np.diag(model.M))


def fit(moments, k, sigma2=None, beta=1.0, seed=0):
    """Fit a linear VAE by ascent on the (beta-)ELBO from a random start, mu at the mean.

    The ascent is in the decoder, by expectation-maximisation: the encoder with an unrestricted covariance
    that is best for W, then the W (and sigma2) that are best for that encoder. As in PX-EM (Liu, Rubin & Wu,
    1998) the prior of z is freed in that second step and put back to N(0, I) by a change of the basis of z,
    so that the lengths of W's columns need no small steps. Nesterov's momentum, dropped whenever it would
    lower the objective, makes up for close eigenvalues.

    Three facts make the result the best linear VAE. Every update raises the beta-ELBO of the unrestricted
    encoder. The rotation that Theorem 1 uses, W = U L R^T to U L, leaves that value unchanged and brings the
    diagonal encoder up to it, since the posterior gap of orthogonal columns is 0. And every stationary point
    that is not a global maximum is a saddle (chapters 02 and 05). That a random start misses the saddles is not
    proved for updates with momentum; it is seen in every run, and tested against the closed form.

    The data enter by their mean and by a root of the covariance, which is only ever multiplied with n x k and
    k x n matrices; no eigendecomposition is made.

    Parameters
    ----------
    moments : Moments
    k : int
        Number of latents, 1 to n.
    sigma2 : float, optional
        A fixed noise variance. Without it, it is learned.
    beta : float
        Weight of the KL term, above 0.
    seed : int
        Of the random start.

    Returns
    -------
    LinearVAE
        Its columns lie along the principal directions, longest first.

    Raises
    ------
    ValueError
        When sigma2 is to be learned but the objective has no upper bound, or no best sigma2; or when rounding of
        the covariance could be seen in the objective.
    RuntimeError
        When the objective still rises after `MAX_UPDATES` updates.

    See Also
    --------
    helpers.ppca.fit : the same maximum in closed form, at beta = 1.
    helpers.spectrum.elbo : its value, from the eigenvalues alone.

    Examples
    --------
    >>> moments = Moments([0, 0, 0], [[4, 0, 0], [0, 2, 0], [0, 0, 1]], count=100)
    >>> model = fit(moments, k=2, sigma2=3.0)
    >>> (model.W**2).sum(axis=0).round(4).tolist()  # squared lengths max(lambda - sigma2, 0): one latent collapses
    [1.0, 0.0]
    >>> round(fit(moments, k=2).elbo(moments), 4)  # with sigma2 learned, the maximum of the likelihood
    -5.2965
    """
    n = instance("moments", moments, Moments).mean.size
    k, beta = integer("k", k, 1, n), positive("beta", beta)
    learn = sigma2 is None
    if learn:
        refuse_no_residual(moments, k, beta)
    # In units that are a power of two, which changes no digit, no square of any data leaves float64.
    unit = 2.0 ** np.round(np.log2(np.abs(moments.root).max())) if moments.root.any() else 1.0
    root = moments.root / unit
    spread = (root**2).sum()
    s = 1e-20 * spread / n if learn else positive("sigma2 in units of the data", positive("sigma2", sigma2) / unit**2)
    rng = np.random.default_rng(integer("seed", seed, 0, 2**63 - 1))
    W = rng.standard_normal((n, k)) * np.sqrt(spread / (n * k))  # as much variance as the data
    if learn:
        # From next to no noise: a unit that collapses while sigma2 is still too large regrows from rounding.
        _, W, s = _update(W, root, spread, s, beta)
    W_before, s_before = W, s
    best, age, waited = -np.inf, 0, 0
    for _ in range(MAX_UPDATES):
        momentum = age / (age + 3)
        Y = W + momentum * (W - W_before)
        y = s * (s / s_before) ** momentum
        value, new_W, new_s = _update(Y, root, spread, y, beta)
        rounding = 1e-14 * (abs(value) + n * (1 + abs(np.log(y))))  # of the value: smaller changes mean nothing
        waited = 0 if value > best + rounding else waited + 1
        if waited == PATIENCE:
            break
        W_before, s_before = W, s
        if value < best - rounding:
            age = 0
        else:
            best, age = max(value, best), age + 1
            W, s = new_W, new_s if learn else s
    else:
        value -= n * np.log(unit)  # in the units of the data
        raise RuntimeError(f"the objective, {value:.10g} nats, still rises after {MAX_UPDATES} updates")
    U, l, _ = svd(W)
    W, s = U * l * unit, s * unit**2 if learn else float(sigma2)
    model = LinearVAE(W, *optimal_encoder(W, s, beta), moments.mean, s)
    model.terms(moments)  # refuses what rounding could decide
    return model


def _update(W, root, spread, sigma2, beta):
    """One update of `fit`, from W (n, k), a root of S (n, rank), the trace of S and sigma2.

    Returns
    -------
    value : float
        The beta-ELBO at W with the best unrestricted encoder.
    W : (n, k) ndarray
    sigma2 : float
        The best for the new W and that encoder.
    """
    n, k = W.shape
    theta = beta * sigma2
    # With A A^T = M and Q = W A^-T the encoder is V = A^-T Q^T, and the average of q(z | x) over the data,
    # the best prior for it, has the covariance A^-T (theta I + Q^T S Q) A^-1 = L L^T. The best W for this
    # encoder is S V^T (L L^T)^-1; taking z back to N(0, I) multiplies it by L, and with F = A^T L, so that
    # F F^T = theta I + Q^T S Q, what comes out is S Q F^-T: with B = root^T Q, root times B F^-T.
    Q, diagonal = _orthonormalise(W, theta)
    B = root.T @ Q[:n]
    log_det = 2 * np.log(diagonal).sum() - k * np.log(theta)
    value = -(n * np.log(2 * np.pi * sigma2) + beta * log_det + _left(root, Q, B, spread) / sigma2) / 2
    # F is made upper triangular, as A^T is: then L is I once W no longer moves, and the basis of z does not
    # turn, which momentum would not survive.
    P = _orthonormalise(B[:, ::-1], theta)[0][:, ::-1]
    new_W = root @ P[: len(B)]
    return value, new_W, _left(root.T, P, new_W, spread) / n


def _orthonormalise(B, theta):
    """[B; sqrt(theta) I] R^-1 and the diagonal of R, where R^T R = B^T B + theta I and R is upper triangular."""
    stacked = np.vstack([B, np.sqrt(theta) * np.eye(B.shape[1])])
    if theta > 1e-8 * (B**2).sum():
        R = cholesky(stacked.T @ stacked)
        return solve_triangular(R, stacked.T, trans="T").T, np.diag(R)
    Q, R = np.linalg.qr(stacked)  # slower, but the sum above would lose a small theta
    signs = np.where(np.diag(R) < 0, -1.0, 1.0)
    return Q * signs, signs * np.diag(R)


def _left(root, Q, B, spread):
    """Trace of S (I - Q_1 Q_1^T) with Q_1 the upper part of Q, S = root root^T and B = root^T Q_1."""
    left = spread - (B**2).sum()
    if left > 1e-4 * spread:
        return left
    # The difference would cancel. With Q_1^T Q_1 + Q_2^T Q_2 = I it is a sum of two sums of squares.
    n = len(root)
    return ((root - Q[:n] @ B.T) ** 2).sum() + ((Q[n:] @ B.T) ** 2).sum()
