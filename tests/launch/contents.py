"""What of a ledger must be equal in two runs of one campaign: everything but the clock."""

from __future__ import annotations

from pathlib import Path

from matloop.ledger.opening import LedgerConfig, read_ledger


def contents(where: Path | LedgerConfig, campaign_id: str = "copper-gold") -> dict[str, object]:
    """Return candidates, verdicts, decisions and states without times and durations."""
    ledger = read_ledger(where) if isinstance(where, Path) else where.open()
    try:
        decisions = ledger.decisions(campaign_id)
        keys = {key for decision in decisions for key in decision.evaluations}
        verdicts = {}
        for key, record in ledger.evaluations(keys).items():
            evaluation = record.evaluation.model_dump(mode="json")
            del evaluation["cost"]["seconds"]
            verdicts[key] = evaluation
        states = [
            state.model_dump(mode="json", exclude={"created_at", "resources"})
            for state in ledger.states(campaign_id)
        ]
        return {
            "candidates": [record.model_dump() for record in ledger.candidates(campaign_id)],
            "verdicts": dict(sorted(verdicts.items())),
            "decisions": [decision.model_dump() for decision in decisions],
            "states": states,
            "artifacts": [
                {name: item.sha256 for name, item in state.resources.items()}
                for state in ledger.states(campaign_id)
            ],
        }
    finally:
        ledger.close()
