"""The conformance kit catches what it says it catches: a method that breaks one promise is told so, by that promise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Generator, Tensor

from gapbench.evaluation import conformance
from gapbench.evaluation.conformance import EXACT, PROMISES, Verdict, verdicts
from gapbench.methods import sgld
from gapbench.methods.base import Claim, FittedMethod, UncertaintyMethod
from gapbench.methods.engine.dp_sgd import StackedDPOptimizer
from gapbench.methods.engine.exactness import Gaussian, LinearRegression
from gapbench.methods.engine.model import Model
from gapbench.methods.engine.posterior_draws import PosteriorDraws
from gapbench.methods.engine.predictions import MixturePrediction, QuantilePrediction, StudentTPrediction
from gapbench.runners import suites as suites_module
from gapbench.runners.cli.main import main


@dataclass(frozen=True)
class Prior(UncertaintyMethod):
    """Draws of the prior, moved by the mean of y: keeps every promise. Its flawed children break one each."""

    draws: int = 50
    width: float = 1 / 3
    shift: float = 0.0
    about: str = "a mean"

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = model.sample_prior(generator, (len(y), self.draws))
        return PosteriorDraws(model, self.width * theta + y.mean(1).view(-1, 1, 1))


@dataclass(frozen=True)
class Constant(UncertaintyMethod):
    """No random numbers at all, like a closed form."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = torch.ones(len(y), 1, model.size, device=x.device) * y.mean(1).view(-1, 1, 1)
        return PosteriorDraws(model, theta)


class WithDiagnostic(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return replace(super().fit(model, x, y, generator), diagnostics={"loss": self.loss(y)})

    def loss(self, y: Tensor) -> Tensor:
        raise NotImplementedError


class Tuple(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Saying(lambda x: (x, x))


@dataclass(frozen=True)
class Saying(FittedMethod):
    """Says what it is told to."""

    what: Callable[[Tensor], object]

    def __call__(self, x: Tensor) -> MixturePrediction:
        return self.what(x)  # type: ignore[return-value]


class WithGradients(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = model.sample_prior(generator, (len(y), self.draws)) + y.mean(1).view(-1, 1, 1)
        return PosteriorDraws(model, theta.requires_grad_())


class NegativeStd(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Saying(lambda x: MixturePrediction(x[..., :1].mT, torch.tensor(-0.3), torch.tensor(0.1)))


class NotFitted(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return lambda x: x  # type: ignore[return-value]


class Exits(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise SystemExit(3)


class OneDiagnosticForAll(WithDiagnostic):
    def loss(self, y: Tensor) -> Tensor:
        return y.mean()


class DiagnosticOfTheStack(WithDiagnostic):
    def loss(self, y: Tensor) -> Tensor:
        return y.mean().expand(len(y))


class DrawsFirst(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return PosteriorDraws(model, model.sample_prior(generator, (self.draws + 1, len(y))))


class NotFinite(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return PosteriorDraws(model, model.sample_prior(generator, (len(y), self.draws)) / 0)


class OneNotFinite(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = model.sample_prior(generator, (len(y), self.draws))
        theta[1] = torch.nan
        return PosteriorDraws(model, theta)


class ChainsThatDoNotDivide(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return PosteriorDraws(model, model.sample_prior(generator, (len(y), self.draws)), chains=self.draws + 1)


class EveryReplicaFails(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return replace(super().fit(model, x, y, generator), failures=dict.fromkeys(range(len(y)), "too hard"))


class GlobalStream(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return PosteriorDraws(model, torch.randn(len(y), self.draws, model.size) + y.mean(1).view(-1, 1, 1))


class GlobalSeed(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        torch.manual_seed(int(torch.randint(1000, (), generator=generator)))
        return PosteriorDraws(model, torch.randn(len(y), self.draws, model.size) + y.mean(1).view(-1, 1, 1))


class FixedSeed(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return super().fit(model, x, y, torch.Generator().manual_seed(0))


class SameNoiseForAll(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = model.sample_prior(generator, (1, self.draws)).expand(len(y), -1, -1)
        return PosteriorDraws(model, theta + y.mean(1).view(-1, 1, 1))


class SameNoiseForSome(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        theta = model.sample_prior(generator, (len(y), self.draws))
        theta[-1] = theta[-2]
        return PosteriorDraws(model, theta + y.mean(1).view(-1, 1, 1))


@dataclass(frozen=True)
class NoisyFit(FittedMethod):
    model: Model
    theta: Tensor
    generator: Generator

    def __call__(self, x: Tensor) -> MixturePrediction:
        noise = torch.randn(self.theta.shape, generator=self.generator)
        return PosteriorDraws(self.model, self.theta + noise)(x)


class NoiseAtPrediction(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return NoisyFit(model, model.sample_prior(generator, (len(y), self.draws)), generator)


class StandardisedOverTheStack(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return super().fit(model, x, y / y.std(), generator)


class FirstReplicasDataForAll(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return super().fit(model, x, y[:1].expand_as(y), generator)


@dataclass(frozen=True)
class Standardising(FittedMethod):
    inner: FittedMethod

    def __call__(self, x: Tensor) -> MixturePrediction:
        made = self.inner(x - x.mean(1, keepdim=True))
        assert isinstance(made, MixturePrediction)
        return made


class StandardisedByTestPoints(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Standardising(super().fit(model, x, y, generator))


class CentredInPlace(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        y -= 0.1
        return super().fit(model, x, y, generator)


@dataclass(frozen=True)
class Hidden(Prior):
    temperature: float = field(default=1.0, repr=False)


@dataclass(frozen=True)
class NotCompared(Prior):
    temperature: float = field(default=1.0, compare=False)


@dataclass(frozen=True)
class Rounded(Prior):
    width: float = 0.25

    def __repr__(self) -> str:
        return f"Rounded(draws={self.draws}, width={self.width:.2f}, shift={self.shift}, about={self.about})"


@dataclass(frozen=True)
class LeftOut(Prior):
    """`max_steps=6` holds the letters of `steps=6`."""

    steps: int = 6
    max_steps: int = 6

    def __repr__(self) -> str:
        rest = f"width={self.width}, shift={self.shift}, about={self.about}, max_steps={self.max_steps}"
        return f"LeftOut(draws={self.draws}, {rest})"


@dataclass(frozen=True)
class WordLeftOut(Prior):
    def __repr__(self) -> str:
        return f"WordLeftOut(draws={self.draws}, width={self.width}, shift={self.shift})"


@dataclass(frozen=True)
class Unchecked(Prior):
    def __post_init__(self) -> None:
        pass


class FailsWithItsOwnError(Prior):
    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        raise RuntimeError("out of ideas")


class Forgetful(UncertaintyMethod):
    """The commonest slip of a first method: @dataclass is not there, so that these are no fields."""

    rate: float = 5.0
    steps: int = -3
    labels: ClassVar[tuple[str, ...]] = ("a", "b")

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Prior().fit(model, x, y, generator)


class Wider(Prior):
    width = 3.0


@dataclass(frozen=True)
class WiderStill(Wider):
    """Decorated, but the attribute of its base is no field."""


class SetByHand(UncertaintyMethod):
    def __init__(self, width: float = 0.3) -> None:
        object.__setattr__(self, "width", width)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Prior().fit(model, x, y, generator)


@dataclass(frozen=True)
class WithoutContent(Prior):
    """A hyperparameter whose content nobody can know."""

    stream: object = field(default_factory=lambda: iter([1, 2]))


BROKEN = {
    OneDiagnosticForAll: "shapes, types, finite",
    DrawsFirst: "shapes, types, finite",
    EveryReplicaFails: "shapes, types, finite",
    OneNotFinite: "shapes, types, finite",
    NotFinite: "shapes, types, finite",
    ChainsThatDoNotDivide: "shapes, types, finite",
    FailsWithItsOwnError: "shapes, types, finite",
    GlobalStream: "the generator decides everything",
    GlobalSeed: "the generator decides everything",
    FixedSeed: "the generator decides everything",
    SameNoiseForSome: "the generator decides everything",
    SameNoiseForAll: "the generator decides everything",
    NoiseAtPrediction: "the generator decides everything",
    StandardisedOverTheStack: "replicas do not see each other",
    FirstReplicasDataForAll: "replicas do not see each other",
    DiagnosticOfTheStack: "replicas do not see each other",
    StandardisedByTestPoints: "a prediction is pointwise in x",
    CentredInPlace: "what is passed in is left alone",
    Tuple: "shapes, types, finite",
    WithGradients: "shapes, types, finite",
    NegativeStd: "shapes, types, finite",
    NotFitted: "shapes, types, finite",
    Exits: "shapes, types, finite",
    Forgetful: "the fields tell all hyperparameters",
    Wider: "the fields tell all hyperparameters",
    WiderStill: "the fields tell all hyperparameters",
    SetByHand: "the fields tell all hyperparameters",
    WithoutContent: "the fields tell all hyperparameters",
    Hidden: "the fields tell all hyperparameters",
    NotCompared: "the fields tell all hyperparameters",
    Rounded: "the fields tell all hyperparameters",
    LeftOut: "the fields tell all hyperparameters",
    WordLeftOut: "the fields tell all hyperparameters",
    Unchecked: "nonsense settings are refused",
}


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_promise_is_seen(cls: type[UncertaintyMethod]) -> None:
    """By the promise that is broken, with a reason. Seen to catch: eight of the checks left out."""
    found = conformance.verdict(cls(), BROKEN[cls], PROMISES[BROKEN[cls]])
    assert found.outcome == "broken" and found.detail


def test_every_promise_can_be_broken() -> None:
    """None of them is there for show."""
    assert set(BROKEN.values()) == set(PROMISES)


@dataclass(frozen=True)
class Quantiles(UncertaintyMethod):
    """Empirical quantiles of y, and no f."""

    levels: tuple[float, ...] = (0.1, 0.5, 0.9)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        values = y.quantile(torch.tensor(self.levels), 1).mT.unsqueeze(2)
        return Saying(lambda x: QuantilePrediction(self.levels, values.expand(-1, -1, x.shape[1])))


@dataclass(frozen=True)
class Student(UncertaintyMethod):
    """The conjugate prediction of an unknown mean and variance."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        n = y.shape[1]

        def what(x: Tensor) -> StudentTPrediction:
            ones = torch.ones(x.shape[:2])
            mean, std = (part(y, 1).unsqueeze(1) * ones for part in (torch.mean, torch.std))
            return StudentTPrediction((n - 1) * ones, mean, std * (1 + 1 / n) ** 0.5, std * (1 / n) ** 0.5)

        return Saying(what)


class SaysWhenItFails(Prior):
    """Undecorated, which does no harm: it has no field of its own. Its replica 1 fails, and it says so."""

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        fit = super().fit(model, x, y, generator)
        assert isinstance(fit, PosteriorDraws)
        theta = fit.theta.clone()
        theta[1] = torch.nan
        return replace(fit, theta=theta, failures={1: "the chain left"})


@dataclass(frozen=True)
class Wrapper(UncertaintyMethod):
    """A method with a method as a field, whose burn_in of 0 has no neighbour below."""

    inner: UncertaintyMethod = field(default_factory=lambda: BurnedIn())
    table: tuple[float, ...] = (0.5, 0.25)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return self.inner.fit(model, x, y, generator)


@dataclass(frozen=True)
class BurnedIn(Prior):
    burn_in: int = 0


KEEPS_ALL = [Prior, Constant, Quantiles, Student, SaysWhenItFails, Wrapper]


@pytest.mark.parametrize("cls", KEEPS_ALL, ids=lambda cls: cls.__name__)
def test_what_keeps_all_promises_is_left_in_peace(cls: type[UncertaintyMethod]) -> None:
    """Methods that draw no random number, have no f, claim nothing, wrap another, or fail in one replica and say so.
    Seen to catch: a method of quantiles asked for its density, a wrapped value that may not be refused by an error, an
    undecorated class without a field of its own refused, a failed replica's nan taken for a fault."""
    assert {verdict.promise: verdict.outcome for verdict in verdicts(cls())} == {
        **dict.fromkeys(PROMISES, "kept"),
        EXACT: "no claim",
    }


ONE_CAUSE = {
    Tuple: ("shapes, types, finite", "returned a tuple: expected a Prediction"),
    WithGradients: ("shapes, types, finite", "carries gradients: detach"),
    OneDiagnosticForAll: ("shapes, types, finite", "diagnostic loss: shape (), expected (R,)"),
    NotFitted: ("shapes, types, finite", "fit returned a function: expected a FittedMethod"),
    FailsWithItsOwnError: ("shapes, types, finite", "RuntimeError: out of ideas"),
    GlobalStream: ("the generator decides everything", "some come from elsewhere"),
}


@pytest.mark.parametrize("cls", ONE_CAUSE, ids=lambda cls: cls.__name__)
def test_one_cause_is_named_once(cls: type[UncertaintyMethod]) -> None:
    """By the promise that it breaks; the others say that they were not tried, or are kept. Seen to catch: a tuple that
    breaks four promises, replicas that see each other by way of the global stream."""
    promise, words = ONE_CAUSE[cls]
    found = list(verdicts(cls()))
    assert [verdict.promise for verdict in found if verdict.outcome == "broken"] == [promise]
    assert words in next(verdict.detail for verdict in found if verdict.outcome == "broken")
    assert any(verdict.outcome == "not tried" for verdict in found)


def test_chance_at_prediction_is_no_dependence_on_x() -> None:
    """A prediction that differs each time cannot be compared in chunks. Seen to catch: pointwise broken as well."""
    outcomes = {verdict.promise: verdict.outcome for verdict in verdicts(NoiseAtPrediction())}
    assert outcomes["the generator decides everything"] == "broken"
    assert outcomes["a prediction is pointwise in x"] == "not tried"


def test_what_cannot_be_told_apart_is_broken_if_nothing_else_is() -> None:
    """Nothing passes for want of a culprit. Seen to catch: exit code 0 where a promise was not tried."""
    tried = {"one": lambda method: conformance.demand_repeats(method, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conformance, "PROMISES", tried)
        found = next(verdicts(GlobalStream()))
    assert found.outcome == "broken" and "other numbers each time" in found.detail


def test_a_methods_own_error_has_its_traceback() -> None:
    """From where the method's code begins; what the kit itself found has none. Seen to catch: no line number, the
    kit's own frames."""
    (own, *_) = [verdict for verdict in verdicts(FailsWithItsOwnError()) if verdict.outcome == "broken"]
    assert 'raise RuntimeError("out of ideas")' in own.traceback and "test_conformance.py" in own.traceback
    assert "evaluation/conformance.py" not in own.traceback
    assert not any(verdict.traceback for verdict in verdicts(Tuple()))


@dataclass(frozen=True)
class Closed(FittedMethod):
    """N(mean, variance) of f at every point, in closed form."""

    model: Model
    law: Gaussian
    replicas: int

    def __call__(self, x: Tensor) -> MixturePrediction:
        features = torch.from_numpy(LinearRegression.features(x))  # (R, M, P)
        covariance = torch.from_numpy(self.law.covariance)
        variance = torch.einsum("rmi,ij,rmj->rm", features, covariance, features)
        mean = features @ torch.from_numpy(self.law.mean)
        return MixturePrediction(mean.unsqueeze(1), variance.sqrt().unsqueeze(1), torch.tensor(self.model.noise_std))


@dataclass(frozen=True)
class ClosedForm(UncertaintyMethod):
    """The posterior of linear regression by its formula; claimed as it is, or with other moments than it has."""

    stretch: float = 1.0
    shift: float = 0.0

    @property
    def exactness(self) -> Claim:
        def law(regression: LinearRegression) -> Gaussian:
            posterior = regression.posterior
            return Gaussian(posterior.mean + self.shift, posterior.covariance * self.stretch)

        return Claim(self, law)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        return Closed(model, LinearRegression(model, x[0], y[0]).posterior, len(y))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "outcome"),
    [
        (ClosedForm(), "kept"),
        (ClosedForm(stretch=1.04), "kept"),
        (ClosedForm(stretch=1.06), "broken"),
        (ClosedForm(stretch=0.0), "broken"),
        (ClosedForm(shift=0.1), "broken"),
    ],
)
def test_a_claim_holds_to_five_percent(method: ClosedForm, outcome: str) -> None:
    """Of the posterior's variance and std, where nothing is left to chance; and no variance means none."""
    assert conformance.verdict(method, EXACT, conformance.exact).outcome == outcome


@dataclass(frozen=True)
class FewDraws(UncertaintyMethod):
    """Independent draws of the posterior of linear regression, stretched: right on the average over repeats."""

    draws: int = 1
    stretch: float = 1.0

    @property
    def exactness(self) -> Claim:
        return Claim(self, lambda regression: regression.posterior)

    def fit(self, model: Model, x: Tensor, y: Tensor, generator: Generator) -> FittedMethod:
        posterior = LinearRegression(model, x[0], y[0]).posterior  # type: ignore[arg-type]
        normal = torch.randn(len(y), self.draws, model.size, generator=generator, dtype=torch.float64)
        root = torch.from_numpy(np.linalg.cholesky(self.stretch * posterior.covariance))
        return PosteriorDraws(model, (torch.from_numpy(posterior.mean) + normal @ root.mT).float())


@pytest.mark.parametrize(
    ("method", "outcome", "says"),
    [
        (FewDraws(draws=200), "kept", "variance off by"),
        (FewDraws(draws=200, stretch=1.25), "broken", "variance off by"),
        (FewDraws(draws=1), "broken", "a prediction's own variance is 0"),
        (FewDraws(draws=4), "broken", "more draws are needed"),
    ],
)
def test_error_bars_are_a_predictions_own(method: FewDraws, outcome: str, says: str) -> None:
    """A point estimate that scatters as the posterior does has none, and few draws prove nothing. Seen to catch: the
    second moment about the law's mean alone, an allowance without an end."""
    found = conformance.verdict(method, EXACT, conformance.exact)
    assert found.outcome == outcome and says in found.detail


def test_an_error_without_end_is_no_small_error() -> None:
    """nan compares with nothing. Seen to catch: max(nan, ...) < 1 taken for kept."""
    assert conformance.verdict(ClosedForm(shift=float("nan")), EXACT, conformance.exact).outcome == "broken"


NOISE = "normal_(0, self.noise_multiplier * self.max_grad_norm, generator=self.generator)"
DRIFT = "gradients.add_weighted_sum(factors, theta.grad)"
IMPORT = "from gapbench.methods.engine.dp_sgd import StackedDPOptimizer\n"
OPTIMIZER = (
    "from typing import Any\nfrom opacus.optimizers import DPOptimizer\n"
    "from gapbench.methods.engine.gradients import PerSampleGradients\n"
    "from gapbench.methods.engine.precision import widest\n" + inspect.getsource(StackedDPOptimizer)
)
PLANTED: Mapping[str, tuple[str, str]] = {
    "nothing": ("", ""),
    "noise √2 too large": ("math.sqrt(2 / (self.lr * n))", "math.sqrt(4 / (self.lr * n))"),
    "noise 10 % too large": (NOISE, NOISE.replace("(0, ", "(0, 1.1 * ")),
    "drift doubled": (DRIFT, f"{DRIFT}; {DRIFT}"),
    "likelihood not rescaled": (
        DRIFT,  # times n/b of the problem that it is tried on
        f"drift = torch.zeros_like(theta); {DRIFT.replace('theta.grad', 'drift')}; theta.grad.add_(drift, alpha=0.25)",
    ),
    "prior forgotten": ("weight_decay=1 / (n * model.prior_std**2)", "weight_decay=0.0"),
    "no noise": (NOISE, "zero_()"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_bug_in_a_copy_of_sgld_is_seen(bug: str, tmp_path: Path) -> None:
    """From the command line, as a user has a file of his own checked: exit code 1 and the law named, by six bugs, and 0
    by the copy as it is."""
    right, wrong = PLANTED[bug]
    source = inspect.getsource(sgld).replace("class SGLD(", "class Langevin(")
    source = source.replace(f"        {IMPORT}", "").replace(f"    {IMPORT}", "    pass\n")
    source = source.replace("@dataclass(frozen=True)", f"{OPTIMIZER}\n\n@dataclass(frozen=True)", 1)
    assert source.count(right) == 1 or not right
    (tmp_path / "mine.py").write_text(source.replace(right, wrong) if right else source)
    result = CliRunner().invoke(main, ["check", f"{tmp_path / 'mine.py'}:Langevin"], prog_name="gapbench")
    assert result.exit_code == (0 if bug == "nothing" else 1), result.output
    verdict = "kept  " if bug == "nothing" else "broken"
    assert any(line.startswith(f"{verdict}    {EXACT}") for line in result.stdout.splitlines()), result.stdout


def test_check_knows_the_rows_and_names_what_it_does_not_know() -> None:
    """A row without a claim says so, with exit code 0; a misspelt one is answered with a near one, exit code 2."""

    def check(name: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["check", name], prog_name="gapbench")
        return result.exit_code, result.output

    code, said = check("sgld_private")
    assert code == 0 and f"no claim  {EXACT}" in said and said.count("kept  ") == len(PROMISES)
    code, said = check("sglt")
    assert code == 2 and "did you mean sgld" in said
    code, said = check("nowhere.py:SGLD")
    assert code == 2 and "nowhere.py" in said and "no file" in said


def test_all_methods_are_checked_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more repeats, and exit code 1 if one of them breaks a promise. Seen to catch: the verdict of the last one
    taken for that of all, 128 repeats."""
    repeats = []

    def some(method: UncertaintyMethod, number: int) -> Iterator[Verdict]:
        repeats.append(number)
        yield Verdict("a promise", "broken" if isinstance(method, GlobalStream) else "kept")

    monkeypatch.setattr(conformance, "verdicts", some)
    found = {"stream": GlobalStream(), "prior": Prior()}
    default = suites_module.suites()["default"]
    monkeypatch.setitem(suites_module.BUILDERS, "all", lambda: replace(default, methods=found))
    result = CliRunner().invoke(main, ["check", "--all"], prog_name="gapbench")
    assert result.exit_code == 1 and repeats == [conformance.MANY_REPEATS] * 2
    assert [line.split()[0] for line in result.stdout.splitlines() if "a promise" in line] == ["broken", "kept"]
    monkeypatch.setitem(suites_module.BUILDERS, "all", lambda: replace(default, methods={"prior": Prior()}))
    assert CliRunner().invoke(main, ["check", "--all"]).exit_code == 0
    for words in (["check"], ["check", "svi", "--all"]):
        refused = CliRunner().invoke(main, words, prog_name="gapbench")
        assert refused.exit_code == 2 and "expected one METHOD or more, or --all" in refused.output
