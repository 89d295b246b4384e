"""Any method as a scikit-learn estimator. It needs scikit-learn: pip install 'gapbench[sklearn]'.

GapbenchRegressor("mclmc").fit(X, y).predict(X_new, return_std=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from gapbench.methods.base import UncertaintyMethod
from gapbench.methods.engine.model import MLP
from gapbench.methods.engine.noise import HeteroscedasticNoise, LearnedNoise, Noise
from gapbench.runners.api import DataError, Predicted, fit

Floats = NDArray[np.float64]
BLOCK = 64  # rows
GRID = (1e-6, 1e-5, 1e-4, 1e-3, *(percent / 100 for percent in range(1, 100)), 1 - 1e-3, 1 - 1e-4, 1 - 1e-5, 1 - 1e-6)
NOISES = {"learned": LearnedNoise, "heteroscedastic": HeteroscedasticNoise}


class GapbenchRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A network, or what takes its place, with error bars.

    method: a name of `gapbench list`, or an instance such as SVI(steps=1000). hidden, activation: of the network.
    noise: "learned", "heteroscedastic" (its std depends on x), or its known std in the units of y. random_state: an
    integer gives the same bits again. device: "cpu", "cuda", "mps" or "auto".
    Fitted: `fit_`, a `gapbench.runners.api.Fit` with the method's diagnostics and remarks.
    """

    def __init__(
        self,
        method: str | UncertaintyMethod = "mclmc",
        *,
        hidden: Sequence[int] | int = (50, 50),
        activation: Literal["relu", "tanh", "silu"] = "relu",
        noise: str | float = "learned",
        random_state: Any = 0,
        device: str = "cpu",
    ) -> None:
        self.method = method
        self.hidden = hidden
        self.activation = activation
        self.noise = noise
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the method. X: (N, D), y: (N,). Warns FitWarning; raises as `gapbench.runners.api.fit` does."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, multi_output=True, ensure_min_samples=2)
        if y.ndim == 2 and y.shape[1] > 1:
            raise ValueError(f"y: {y.shape[1]} columns, expected one; fit an estimator to each column")
        y = column_or_1d(y, warn=True)
        model = MLP(
            features=X.shape[1],
            hidden=tuple(np.atleast_1d(np.asarray(self.hidden)).tolist()),
            activation=self.activation,
            noise_std=self._noise_std(y),
        )
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.fit_ = fit(X, y, self.method, model=model, seed=seed, device=self.device)
        return self

    def predict(self, X: Any, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """The mean of y, (M,), and with return_std also the std of y, its noise included."""
        predicted, count = self._predicted(X)
        mean, std = predicted.mean_y[:count], predicted.std_y[:count]
        return (mean, std) if return_std else mean

    def predict_f(self, X: Any) -> tuple[Floats, Floats]:
        """The mean and the std of f, (M,) each: of the function without the noise of y. Raises ValueError if the method
        has no f."""
        predicted, count = self._predicted(X)
        if predicted.mean_f is None or predicted.std_f is None:
            raise ValueError(f"method = {self.method!r}: it predicts y alone, and has no f")
        return predicted.mean_f[:count], predicted.std_f[:count]

    def predict_interval(self, X: Any, level: float = 0.9) -> Floats:
        """The ends of the central interval that holds y with probability `level`, (M, 2)."""
        if not 0 < level < 1:
            raise ValueError(f"level = {level}: expected a probability between 0 and 1, such as 0.9")
        return self.predict_quantiles(X, [(1 - level) / 2, (1 + level) / 2])

    def predict_quantiles(self, X: Any, levels: Sequence[float]) -> Floats:
        """The quantiles of y at these levels, (M, len(levels))."""
        predicted, count = self._predicted(X)
        return predicted.quantiles(levels).T[:count]

    def crps(self, X: Any, y: Any) -> Floats:
        """The CRPS of the predicted law of y at what was observed, (M,), in the units of y; less is better."""
        predicted, count = self._predicted(X)
        observed = column_or_1d(y)
        check_consistent_length(X, observed)
        return predicted.crps(np.pad(observed, (0, len(predicted.mean_y) - count), mode="edge"))[:count]

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> Floats:
        """Draws of y, (M, n_samples), all independent. Draws of whole functions are `fit_.predict(X).draws_f`.

        Between the quantiles of GRID the law is interpolated over those of the normal law: exact if y is normal.
        """
        quantiles = self.predict_quantiles(X, GRID)
        levels, random = stats.norm.ppf(np.array(GRID)), check_random_state(random_state)
        normal = np.asarray(random.normal(size=(len(quantiles), n_samples))).clip(levels[0], levels[-1])
        return np.stack([np.interp(at, levels, law) for at, law in zip(normal, quantiles, strict=True)])

    def _predicted(self, X: Any) -> tuple[Predicted, int]:
        """The prediction at X and at copies of its last row, and the number of rows of X.

        Copies fill up the last block: matrix libraries round otherwise for another number of rows, and a point should
        be predicted alike alone and among others.
        """
        check_is_fitted(self, "fit_")
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self.fit_.predict(np.pad(X, ((0, -len(X) % BLOCK), (0, 0)), mode="edge")), len(X)

    def _noise_std(self, y: Floats) -> float | Noise:
        """The model's noise, whose units are stds of y."""
        if isinstance(self.noise, str) and self.noise in NOISES:
            return NOISES[self.noise]()
        if isinstance(self.noise, Real) and not isinstance(self.noise, bool) and 0 < self.noise < np.inf:
            return float(self.noise) / (1.0 if np.ptp(y) == 0 else float(y.std()))
        raise DataError(f"noise = {self.noise!r}: expected {', '.join(map(repr, NOISES))}, or a std in the units of y")


def crps_score(estimator: GapbenchRegressor, X: Any, y: Any) -> float:
    """Minus the mean CRPS of y, for `scoring=` of scikit-learn, where more is better."""
    return -float(estimator.crps(X, y).mean())
