"""Share proposals between generators: more to those that discover more for what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from monty.json import MSONable

from matloop import registry
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


@dataclass(frozen=True)
class Watchful(MSONable):
    """Share as another allocator does, but take places from generators that have collapsed.

    A generator with an alarm in the last iteration keeps a part of its share, the smaller the more
    iterations in a row it has had one, and never less than the floor. What it loses goes to the
    generators without an alarm, in proportion to the shares they started with, so that variety
    comes back before yield counts again. Where all have alarms, the start shares return.

    Attributes
    ----------
    allocator
        Registered name of the allocator that shares otherwise.
    parameters
        Its parameters.
    keep
        Part of its share that a generator keeps per iteration in a row with an alarm.
    floor
        Smallest share of a generator; with many generators at most half an equal share.
    """

    allocator: str = "bandit"
    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    keep: float = 0.5
    floor: float = 0.05

    def __post_init__(self) -> None:
        for name in ("keep", "floor"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.allocator == "watchful":
            raise ValueError("allocator must be another one, such as bandit")

    def allocate(
        self, records: Mapping[str, Record], start: Mapping[str, float]
    ) -> dict[str, float]:
        """Return a share per generator of `start`; they add up to 1."""
        other = registry.build("allocators", self.allocator, self.parameters)
        shares: dict[str, float] = other.allocate(records, start)
        rows = {name: _in_a_row(records[name].alarms) if name in records else 0 for name in shares}
        sound = [name for name, count in rows.items() if not count]
        if len(sound) == len(shares):
            return shares
        begun = _normalised(start)
        if not sound:
            return begun
        kept = {name: share * self.keep ** rows[name] for name, share in shares.items()}
        freed = 1.0 - sum(kept.values())
        room = sum(begun[name] for name in sound)
        for name in sound:
            kept[name] += freed * begun[name] / room
        return _with_floor(_normalised(kept), min(self.floor, 0.5 / len(shares)))


def _in_a_row(alarms: Sequence[int]) -> int:
    """Return in how many of the last iterations, without a gap, there was an alarm."""
    count = 0
    for number in reversed(alarms):
        if not number:
            break
        count += 1
    return count


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
