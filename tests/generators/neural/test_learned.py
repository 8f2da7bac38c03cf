"""The shipped model in a portfolio."""

from __future__ import annotations

import numpy as np
import pytest

from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.neural.learned import Learned
from matloop.generators.neural.model_file import model_path, read_card
from matloop.protocols import ProposalRequest
from matloop.structures.chemistry import is_charge_balanced
from matloop.structures.symmetry import space_group
from matloop.testing.conformance import check_generator


def test_shipped_model_conforms_and_keeps_the_space() -> None:
    """Repeatable, inside the space, charge balanced where asked for, most with the whole system."""
    space = ChemicalSpace(system="Ca-Ti-O", max_atoms=12, charge_balance="required")
    request = ProposalRequest(space, 20, seed=4)
    check_generator(Learned(), request)
    crystals = [one.structure for one in Learned().propose(request)]
    assert len(crystals) == 20
    assert all(is_charge_balanced(one.composition, "smact14") for one in crystals)
    assert sum(len(one.symbol_set) == 3 for one in crystals) >= 14


def test_shipped_model_writes_symmetric_crystals() -> None:
    """Few of its crystals are without symmetry: random ones without a group would all be."""
    space = ChemicalSpace(elements=("Li", "Mg", "Al", "O", "F", "S"), max_atoms=14)
    crystals = [one.structure for one in Learned().propose(ProposalRequest(space, 40, seed=1))]
    assert len(crystals) == 40
    assert sum(space_group(one).number == 1 for one in crystals) <= 4


def test_a_named_penalty_chooses_crystals() -> None:
    """Asked for a volume far from the usual one, crystals come nearer to it."""
    request = ProposalRequest(ChemicalSpace(system="Ca-Ti-O", max_atoms=12), 16, seed=2)

    def volume(generator: Learned) -> float:
        made = [one.structure for one in generator.propose(request)]
        return float(np.median([one.volume / len(one) for one in made]))

    plain = volume(Learned())
    assert volume(Learned(penalties={"volume": 2 * plain})) > 1.03 * plain


def test_card_names_data_and_licence() -> None:
    """The shipped model says what it was trained on, and under which licence."""
    card = read_card(model_path("wyckoff"))
    assert "CC BY 4.0" in card.licence
    assert card.n_train > 10_000
    assert card.metrics["validation_loss"].denominator == card.n_validation


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weights": "nothing"}, "shipped models are"),
        ({"temperature": 0.0}, "temperature"),
        ({"space_group": 300}, "1 to 230"),
        ({"penalties": {"mass": 3.0}}, "no penalty is called 'mass'; there are minimum_distance"),
        ({"penalties": {"density": -1.0}}, "density: -1.0 must be positive"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, object], message: str) -> None:
    """Before anything runs."""
    with pytest.raises((ConfigurationError, ValueError), match=message):
        Learned(**parameters)  # type: ignore[arg-type]


def test_unknown_properties_are_named() -> None:
    """A property the model was not trained with is refused."""
    request = ProposalRequest(ChemicalSpace(system="Ca-O"), 2, seed=0)
    with pytest.raises(ConfigurationError, match="no property 'hardness'"):
        Learned(properties={"hardness": 1.0}).propose(request)
