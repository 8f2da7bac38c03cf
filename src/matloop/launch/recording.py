"""Recording a campaign in its ledger before anything of it runs."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from matloop.documents.campaign import Campaign, CampaignRecord
from matloop.errors import ConfigurationError
from matloop.ledger.interface import Ledger

RECORDED_PACKAGES = (
    "matloop", "jobflow", "fireworks", "maggma", "pymatgen", "ase", "torch", "chgnet", "mace-torch",
    "atomate2", "pyxtal", "smact", "moyopy", "scikit-learn", "numpy", "scipy",
)  # fmt: skip


def recorded(
    ledger: Ledger, campaign: Campaign, where: str, continuation: str, *, resume: bool
) -> CampaignRecord:
    """Return the record of a campaign, written if it is new.

    Parameters
    ----------
    ledger
        Where it is recorded.
    campaign
        As declared, with absolute paths.
    where
        Name of the place, for messages.
    continuation
        What to do with a campaign that is there already, for messages.
    resume
        Accept one that is there already.

    Raises
    ------
    ConfigurationError
        If one of this name is there and `resume` is not given, or it was declared otherwise.
    """
    known = ledger.campaign(campaign.name)
    if known is None:
        ledger.add_campaign(
            CampaignRecord(
                campaign_id=campaign.name,
                campaign=campaign,
                versions=versions(),
                machine=machine(),
                created_at=datetime.now(UTC),
            )
        )
        known = ledger.campaign(campaign.name)  # another may have been first
        assert known is not None
    elif not resume:
        raise ConfigurationError(
            f"campaign {campaign.name!r} was started in {where}: {continuation}"
        )
    if known.campaign != campaign:
        changed = sorted(
            name
            for name in type(campaign).model_fields
            if getattr(known.campaign, name) != getattr(campaign, name)
        )
        raise ConfigurationError(
            f"campaign {campaign.name!r} was started with another {', '.join(changed)}: restore "
            "the file, or give the changed campaign another name"
        )
    return known


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """Return what this machine is."""
    return {
        "system": platform.platform(terse=True),
        "processor": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
