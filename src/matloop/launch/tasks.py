"""What fireworks of a campaign do besides its jobs."""

from __future__ import annotations

from typing import Any

from fireworks import FiretaskBase, FWAction, explicit_serialize


@explicit_serialize
class SubmitNext(FiretaskBase):
    """Add the campaign's next workflow to the LaunchPad; the last firework of every workflow.

    Should it die, `matloop tick` does the same.
    """

    required_params = ("site", "campaign")

    def run_task(self, fw_spec: dict[str, Any]) -> FWAction:
        """Add the workflow and store what became of it."""
        from pathlib import Path

        from matloop.launch.site import load_site
        from matloop.launch.submission import ensure

        site = load_site(Path(self["site"]))
        ledger = site.ledger().open()
        try:
            outcome = ensure(site, self["campaign"], ledger, self.launchpad)
        finally:
            ledger.close()
        return FWAction(
            stored_data={
                "submitted": outcome.submitted,
                "iteration": outcome.iteration,
                "reason": outcome.reason,
            }
        )
