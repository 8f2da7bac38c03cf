"""The campaign file that `matloop new` writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from matloop.campaign_file import parse, suits_charge_balance, template
from matloop.errors import ConfigurationError


@pytest.mark.parametrize("system", [None, "Ca-Ti-O", "Al-Ni", "Si", "Li-Fe-P-O", "Na-Cl"])
def test_what_is_written_is_sound(system: str | None) -> None:
    """A new file passes every check as it stands, for one to four elements."""
    campaign = parse(template(system), Path("new.yaml"))
    assert set(campaign.space.allowed) == set((system or "Ca-Ti-O").split("-"))
    rules = [use.use for use in campaign.stages[0].evaluate]
    assert ("charge_balance" in rules) == (campaign.space.charge_balance == "required")


@pytest.mark.parametrize(
    ("elements", "ionic"),
    [
        (("Sr", "Ti", "O"), True), (("Na", "Cl"), True), (("Li", "F"), True),
        (("Al", "Ni"), False), (("Ga", "As"), False), (("Ti", "C", "N"), False),
        (("Cs", "Au"), False), (("Si",), False), (("He", "Ne"), False),
    ],
)  # fmt: skip
def test_charge_balance_is_for_salts_and_oxides(elements: tuple[str, ...], ionic: bool) -> None:
    """Electronegativities tell ionic systems from intermetallics and covalent ones."""
    assert suits_charge_balance(elements) is ionic


@pytest.mark.parametrize("system", ["Ca-Xx", "Ca-Ca-O", "Ca--O", "calcium", "-"])
def test_what_is_no_system_is_refused(system: str) -> None:
    """Unknown and repeated elements are named."""
    with pytest.raises(ConfigurationError, match="element"):
        template(system)
