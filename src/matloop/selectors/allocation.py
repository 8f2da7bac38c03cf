"""Share proposals between generators: more to those that discover more for what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monty.json import MSONable

from matloop.protocols import Record


@dataclass(frozen=True)
class Fixed(MSONable):
    """Keep the shares the campaign started with."""

    def allocate(
        self, records: Mapping[str, Record], start: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the start shares, made to add up to 1."""
        del records
        return _normalised(start)


@dataclass(frozen=True)
class Bandit(MSONable):
    """Give each generator a share in proportion to its discoveries per cost.

    Discoveries of a generator are taken as a Poisson process in its cost, with a gamma prior whose
    mean is the rate of all generators together. The posterior mean therefore starts at that common
    rate, and a generator that has proposed nothing yet keeps its start share. Cost is deterministic
    work, never seconds, plus a fee per proposal, so that proposals rejected before any work was
    spent count against their generator too.

    Attributes
    ----------
    floor
        Smallest share of a generator; with many generators at most half an equal share.
    discount
        Weight of an iteration relative to the next one, between 0 (only the last counts) and 1 (all
        count the same): what a generator finds first is found, and its yield falls.
    prior
        Discoveries' worth of trust in the common rate.
    optimism
        Posterior standard deviations added to the mean; above 0, little-tried generators gain.
    fee
        Cost of one proposal, as a share of the mean work per proposal.

    References
    ----------
    Discounted bandits: Garivier and Moulines, ALT 2011. The gamma-Poisson posterior is textbook
    material (Gelman et al., Bayesian Data Analysis, 2013, section 2.6).
    """

    floor: float = 0.1
    discount: float = 0.8
    prior: float = 2.0
    optimism: float = 0.0
    fee: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"floor must lie between 0 and 1, got {self.floor}")
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount must lie between 0 and 1, got {self.discount}")
        if self.prior <= 0.0:
            raise ValueError(f"prior must be positive, got {self.prior}")
        if self.optimism < 0.0 or self.fee < 0.0:
            raise ValueError("optimism and fee must not be negative")

    def allocate(
        self, records: Mapping[str, Record], start: Mapping[str, float]
    ) -> dict[str, float]:
        """Return a share per generator of `start`; they add up to 1.

        Without any discovery nothing is known, and the start shares stay.
        """
        shares = _normalised(start)
        sums = {
            name: self._discounted(records[name]) if name in records else (0.0, 0.0, 0.0)
            for name in shares
        }
        proposed, found, work = (sum(column) for column in zip(*sums.values(), strict=True))
        if found <= 0.0 or proposed <= 0.0:
            return shares
        fee = self.fee * work / proposed if work > 0.0 else 1.0
        rate = found / (work + fee * proposed)
        weights = {}
        for name, (own_proposed, own_found, own_work) in sums.items():
            shape = self.prior + own_found
            scale = self.prior / rate + own_work + fee * own_proposed
            weights[name] = shares[name] * (shape + self.optimism * shape**0.5) / scale
        return _with_floor(_normalised(weights), min(self.floor, 0.5 / len(shares)))

    def _discounted(self, record: Record) -> tuple[float, float, float]:
        """Return proposals, discoveries and work, the last iteration counting fully."""
        sums = [0.0, 0.0, 0.0]
        for proposed, found, work in zip(
            record.proposed, record.discoveries, record.work, strict=True
        ):
            sums = [
                self.discount * total + new
                for total, new in zip(sums, (proposed, found, work), strict=True)
            ]
        return sums[0], sums[1], sums[2]


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _with_floor(shares: Mapping[str, float], floor: float) -> dict[str, float]:
    """Raise small shares to the floor and take it from the others in proportion."""
    raised: set[str] = set()
    while True:
        free = 1.0 - floor * len(raised)
        total = sum(share for name, share in shares.items() if name not in raised)
        result = {
            name: floor if name in raised else share * free / total
            for name, share in shares.items()
        }
        below = {name for name, share in result.items() if share < floor} - raised
        if not below:
            return result
        raised |= below
