"""What another policy would have earned, from the log of the one that ran: no click is needed that nobody made.

Each row of the log is one choice: its reward, the probability that it had (`Choice.probability`), and the one that the other
policy gives it. Source: Dudik, Langford and Li 2011, arXiv:1103.4601 (doubly robust); Swaminathan and Joachims 2015
(self-normalised).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from mecold.errors import InvalidDataError, few


@dataclass(frozen=True)
class OffPolicy:
    """An estimate of the mean reward of a policy that did not run.

    Args:
        value: mean reward a choice.
        std_error: of `value`.
        rows: of the log.
        effective: rows that the estimate is worth: few where the policies hardly agree.
        method: `"ips"`, `"snips"` or `"dr"`.
    """

    value: float
    std_error: float
    rows: int
    effective: float
    method: str

    def interval(self, share: float = 0.95) -> tuple[float, float]:
        """Where the mean reward lies, by the normal distribution."""
        if not 0 < share < 1:
            raise InvalidDataError(f"share={share} must lie between 0 and 1.")
        away = float(ndtri(0.5 + share / 2)) * self.std_error
        return self.value - away, self.value + away


def off_policy(
    reward: ArrayLike,
    probability: ArrayLike,
    target: ArrayLike,
    *,
    guess: ArrayLike | None = None,
    expected: ArrayLike | None = None,
    normalise: bool = True,
) -> OffPolicy:
    """Estimate a policy's mean reward from another one's log.

    With `guess` and `expected` the estimate is doubly robust: right if either the probabilities or the guesses are.

    Args:
        reward: of each choice, such as 1 for a click.
        probability: of each choice under the policy that ran; above 0.
        target: of the same choice under the other policy; 0 where it would never make it.
        guess: predicted reward of what was chosen.
        expected: predicted reward of the other policy in the same situation, the mean over its choices.
        normalise: divide by the sum of the weights, not by their number: a little bias for much less noise.

    Raises:
        InvalidDataError: if columns differ in length or are empty, a probability is none, or only one of `guess` and `expected`
            is given.
    """
    columns: dict[str, ArrayLike | None] = {"reward": reward, "probability": probability, "target": target}
    if (guess is None) != (expected is None):
        raise InvalidDataError("A doubly robust estimate needs both `guess` and `expected`; pass neither, or both.")
    if guess is not None:
        columns |= {"guess": guess, "expected": expected}
    values = {name: np.asarray(one, np.float64).ravel() for name, one in columns.items() if one is not None}
    sizes = {name: len(one) for name, one in values.items()}
    if len(set(sizes.values())) > 1 or not sizes["reward"]:
        raise InvalidDataError(f"Columns must have one row a choice, and one at least; they have {sizes}.")
    for name, one in values.items():
        if len(bad := np.flatnonzero(~np.isfinite(one))):
            raise InvalidDataError(f"{len(bad):,} values of {name} are not finite (rows {few(bad.tolist())}).")
    ran, other = values["probability"], values["target"]
    if len(bad := np.flatnonzero((ran <= 0) | (ran > 1))):
        raise InvalidDataError(
            f"{len(bad):,} values of probability are not above 0 and up to 1 (rows {few(bad.tolist())}): what could not be "
            "chosen was not. Log the probability that each choice had."
        )
    if len(bad := np.flatnonzero((other < 0) | (other > 1))):
        raise InvalidDataError(f"{len(bad):,} values of target are no probabilities (rows {few(bad.tolist())}).")
    weight, rows = other / ran, len(ran)
    if not weight.any():
        raise InvalidDataError(
            f"The other policy would have made none of the {rows:,} choices; such a log says nothing of it. Let every "
            "choice have a chance: floor=0.05."
        )
    effective = float(weight.sum() ** 2 / max(float((weight**2).sum()), 1e-300))
    share = weight / max(float(weight.mean()), 1e-300) if normalise else weight
    if guess is not None:
        parts = values["expected"] + share * (values["reward"] - values["guess"])
        value, method = float(parts.mean()), "dr"
        rest = parts - value
    else:
        value, method = float((share * values["reward"]).mean()), "snips" if normalise else "ips"
        rest = share * (values["reward"] - value) if normalise else share * values["reward"] - value
    return OffPolicy(value, float(np.sqrt((rest**2).sum()) / rows), rows, effective, method)
