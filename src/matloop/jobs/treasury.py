"""The treasury: no calculation is submitted before its estimated cost is set aside."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pymatgen.core import Structure

from matloop.documents.account import Balance
from matloop.documents.campaign import Campaign, Stage
from matloop.documents.candidate import Candidate
from matloop.documents.operation import Reservation
from matloop.errors import MatloopError
from matloop.jobs.place import Place
from matloop.ledger.accounts import WHOLE, accounts
from matloop.protocols import Engine

logger = logging.getLogger(__name__)


class Treasury:
    """Sets the estimated cost of calculations aside, as far as the budgets go.

    Parameters
    ----------
    place
        Where the calculations belong; a stage, or its reference phases.
    campaign
        The campaign as declared.
    stage
        The stage that pays.
    engine
        Who calculates.
    """

    def __init__(self, place: Place, campaign: Campaign, stage: Stage, engine: Engine) -> None:
        self._place = place
        self._stage = stage
        self.engine = engine
        self._ledger = place.open()
        limits = (stage.core_hours, campaign.budget.core_hours)
        self._limited = any(limit is not None for limit in limits)
        known = self._ledger.reservations(place.campaign_id)
        self._known = {item.key for item in known}

    def admit(self, key: str, candidate: Candidate) -> bool:
        """Set the cost of a calculation aside; False if it does not fit, and nothing is written.

        What has been set aside stays so: a calculation whose process died is admitted again.

        Parameters
        ----------
        key
            Key of the evaluation it will become.
        candidate
            The crystal to calculate.
        """
        if key in self._known:
            return True
        hours = self.estimate(candidate)
        if self.objection(hours):
            return False
        reservation = Reservation(
            campaign_id=self._place.campaign_id,
            iteration=self._place.iteration,
            stage=self._stage.name,
            key=key,
            candidate_id=candidate.candidate_id,
            core_hours=hours,
            reserved_at=datetime.now(UTC),
        )
        self._ledger.add_reservations([reservation])
        self._known.add(key)
        return True

    def has(self, key: str) -> bool:
        """Whether the cost of a calculation has been set aside."""
        return key in self._known

    def estimate(self, candidate: Candidate) -> float:
        """Return the core-hours to set aside for a candidate."""
        return estimate(self.engine, candidate.structure) or 0.0

    def objection(self, hours: float) -> str:
        """Return why so many core-hours cannot be set aside now; empty if they can."""
        for owner, balance in self._balances():
            left = balance.left
            if left is not None and hours > left:
                return (
                    f"an estimated {hours:.3g} core-hours do not fit the {left:.3g} left of "
                    f"{balance.limit:g} for {owner}"
                )
        return ""

    def left(self) -> float | None:
        """Return the core-hours that can still be set aside; None without a limit."""
        known = [balance.left for _, balance in self._balances()]
        return min((left for left in known if left is not None), default=None)

    def _balances(self) -> list[tuple[str, Balance]]:
        if not self._limited:
            return []
        known = accounts(self._ledger, self._place.campaign_id)
        return [
            (f"stage {self._stage.name!r}", known[self._stage.name].core_hours),
            ("the campaign", known[WHOLE].core_hours),
        ]


def estimate(engine: Engine, structure: Structure) -> float | None:
    """Return the estimated core-hours of a calculation; None where the engine cannot tell.

    An engine that cannot tell will say why in its verdict on the crystal.
    """
    try:
        return engine.core_hours(structure)
    except MatloopError:
        raise
    except Exception as error:
        formula = structure.composition.reduced_formula
        logger.warning("no estimate for %s: %s: %s", formula, type(error).__name__, error)
        return None
