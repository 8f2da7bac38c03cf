"""The transformer over CIF text learns, and writes nothing that the grammar forbids."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Composition, Structure
from pymatgen.io.cif import CifParser

from matloop.generators.neural.architecture import Conditions, SampleRequest
from matloop.generators.neural.architectures.cif_decoding import write_texts
from matloop.generators.neural.architectures.cif_grammar import CifWriter
from matloop.generators.neural.architectures.cif_network import STEP_FIELDS, CifNetwork
from matloop.generators.neural.architectures.cif_steps import GROUP, WIDTH, Rules
from matloop.generators.neural.architectures.cif_transformer import CifTransformer, log_likelihood
from matloop.generators.neural.architectures.wyckoff_drafts import Draft, fits
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.guidance import Volume
from matloop.generators.neural.model_file import TrainedModel, load_model
from matloop.generators.neural.representations.cif_text import (
    CifCrystal,
    Site,
    cif_crystal,
    read_cif_text,
)
from matloop.generators.neural.sampling import draw
from matloop.generators.neural.training import train
from matloop.generators.neural.training_settings import TrainingSettings
from matloop.structures.chemistry import is_charge_balanced
from matloop.structures.symmetry import space_group

SMALL = CifTransformer(width=48, depth=2, heads=4, dropout=0.0, properties=["density"])
SETTINGS = TrainingSettings(epochs=24, batch_size=12, learning_rate=4e-3, warmup=10, device="cpu")


@pytest.fixture(scope="module")
def trained(data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Return a tiny model of a dozen textbook crystals."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    train(SMALL, data, SETTINGS, path, properties=["density"])
    return load_model(path)


@pytest.fixture(scope="module")
def untrained(data: TrainingData) -> tuple[CifNetwork, dict[str, object]]:
    """Return a network with random weights, and its statistics."""
    statistics = SMALL.statistics(data.train)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = SMALL.build(statistics).eval()
    assert isinstance(module, CifNetwork)
    return module, statistics


def parsed(text: str) -> Structure:
    """Return what pymatgen reads in a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CifParser.from_str(text).parse_structures(primitive=False)[0]


def test_round_trip(data: TrainingData) -> None:
    """A crystal is the same after writing and reading, by pymatgen too."""
    matcher = StructureMatcher(ltol=0.02, stol=0.02, angle_tol=1, scale=False)
    for one in data.train[:12]:
        written = cif_crystal(one.structure)
        assert written is not None
        assert read_cif_text(written.text()) == written
        assert matcher.fit(one.structure, written.structure())
        assert matcher.fit(one.structure, parsed(written.text()))


def test_a_free_origin_lies_on_the_first_site() -> None:
    """Moving a polar crystal along its axis changes nothing in the text."""
    sites = (Site("Zn", "b", (0,)), Site("O", "b", (382,)))
    wurtzite = CifCrystal(186, (325, 521), sites)
    structure = wurtzite.structure()
    structure.translate_sites(range(len(structure)), [0.0, 0.0, 0.137])
    assert cif_crystal(structure) == wurtzite


def test_a_text_that_contradicts_its_symmetry_is_refused() -> None:
    """A coordinate that the position fixes cannot be another."""
    text = CifCrystal(225, (421,), (Site("Mg", "a"), Site("O", "b"))).text()
    assert read_cif_text(text).counts == {"Mg": 1, "O": 1}
    with pytest.raises(ValueError, match="does not lie on 4b"):
        read_cif_text(text.replace("0.500 0.500 0.500", "0.500 0.500 0.499"))


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(),
        Conditions(system=("Sr", "Ti", "O")),
        Conditions(elements=("Mg", "O", "Ti")),
        Conditions(formula={"Ca": 1, "Ti": 1, "O": 3}),
        Conditions(n_atoms=7),
        Conditions(space_group=167),
    ],
    ids=lambda one: "-".join(name for name in vars(one) if getattr(one, name)),
)
def test_an_untrained_network_writes_only_valid_texts(
    untrained: tuple[CifNetwork, dict[str, object]], conditions: Conditions
) -> None:
    """Every text is read by pymatgen, and is what was asked for."""
    module, statistics = untrained
    count = 100
    texts = write_texts(module, statistics, SampleRequest(count, 0, conditions))
    whole = [text for text in texts if text is not None]
    assert len(whole) > 0.9 * count
    for text in whole:
        said = read_cif_text(text)
        crystal = parsed(text)
        content = Composition(said.counts)
        assert crystal.composition.reduced_formula == content.reduced_formula
        centring = len(crystal) / content.num_atoms
        assert centring == pytest.approx(round(centring))
        n_atoms, present = content.num_atoms, set(said.counts)
        assert conditions.min_atoms <= n_atoms <= conditions.max_atoms
        assert not conditions.n_atoms or n_atoms == conditions.n_atoms
        assert not conditions.required or present == conditions.required
        assert not conditions.allowed or present <= conditions.allowed
        assert not conditions.space_group or said.space_group == conditions.space_group
        if conditions.formula:
            assert content.reduced_formula == "CaTiO3"


def test_charge_balance_is_held(untrained: tuple[CifNetwork, dict[str, object]]) -> None:
    """No formula that is not balanced can be ended."""
    module, statistics = untrained
    texts = write_texts(module, statistics, SampleRequest(60, 0, charge_balance=True))
    whole = [Composition(read_cif_text(text).counts) for text in texts if text]
    assert len(whole) > 30
    assert all(is_charge_balanced(one, "smact14") for one in whole)


def test_random_walks_of_the_grammar_end(data: TrainingData) -> None:
    """Thousands of tokens drawn evenly make texts; cells have volumes near the expected."""
    names = SMALL.statistics(data.train)["elements"]
    rules = Rules(names, [True] * len(names), Conditions())
    rng = random.Random(0)
    steps = dead = 0
    for _ in range(200):
        writer = CifWriter(rules, Draft({}, (), 1, 12))
        while not writer.whole and not writer.dead:
            allowed = writer.allowed()
            if not writer.dead:
                writer.push(rng.choice(allowed.nonzero()[0].tolist()))
        steps, dead = steps + writer.steps, dead + writer.dead
        if not writer.dead:
            crystal = writer.crystal()
            assert read_cif_text(crystal.text()) == crystal
            assert 1.0 < crystal.structure().volume / sum(crystal.counts.values()) < 400
    assert steps > 5000
    assert dead < 10


def test_training_reduces_the_loss(trained: TrainedModel) -> None:
    """The validation loss falls by more than half from the first epoch to the best."""
    history = trained.card.history
    assert min(row["validation"] for row in history) < 0.5 * history[0]["validation"]


def test_samples_are_sound_crystals_of_known_kinds(trained: TrainedModel) -> None:
    """A model of rock salts, perovskites and rutiles writes crystals of their space groups."""
    sample = draw(trained, SampleRequest(count=12, seed=5, temperature=0.5), distinct=False)
    assert len(sample.structures) == 12
    assert sample.drawn == 12 + sum(sample.rejected.values())
    groups = [space_group(one).number for one in sample.structures]
    assert sum(number in (225, 221, 136) for number in groups) >= 9


def test_likelihoods_are_exact(trained: TrainedModel, data: TrainingData) -> None:
    """The chances of the allowed tokens add up to one, and a memory changes nothing."""
    module = trained.module
    assert isinstance(module, CifNetwork)
    rows = [SMALL.encode(one, trained.statistics) for one in data.train[:12]]
    batch = SMALL.collate([row for row in rows if row], trained.statistics, None)
    with torch.no_grad():
        known = log_likelihood(module, batch)
        cache = module.open(batch, 64)
        every = torch.arange(len(rows))
        last = {name: batch[name][:, 0] for name in (*STEP_FIELDS, "token", "value")}
        last["group"] = batch["group"]
        for step in range(batch["kind"].shape[1]):
            asked = {name: batch[name][:, step] for name in STEP_FIELDS} | {"group": batch["group"]}
            state = module.advance(cache, every, last, asked)
            logits = module.logits(state, asked["kind"], batch["group"])
            allowed = batch["allowed"][:, step]
            real = batch["real"][:, step]
            assert torch.isfinite(logits[real][allowed[real]]).all()
            chances = torch.softmax(logits.masked_fill(~allowed, -torch.inf), -1)
            token = batch["token"][:, step : step + 1]
            found = chances.gather(1, token)[:, 0].log()
            assert torch.allclose(found[real], known[real, step], atol=1e-4)
            last = {name: batch[name][:, step] for name in (*STEP_FIELDS, "token", "value")}
            last["group"] = batch["group"]


def test_what_is_not_yet_written_is_not_seen(trained: TrainedModel, data: TrainingData) -> None:
    """The chance of a token does not depend on the space group or tokens that follow."""
    module = trained.module
    assert isinstance(module, CifNetwork)
    row = SMALL.encode(data.train[9], trained.statistics)
    assert row is not None
    batch = SMALL.collate([row], trained.statistics, None)
    until = int((batch["kind"][0] == GROUP).nonzero()[0])
    other = {name: value.clone() for name, value in batch.items()}
    other["group"][:] = 225
    other["token"][:, until:] = 1
    with torch.no_grad():
        same = [module(one)[0, : until + 1] for one in (batch, other)]
    assert torch.allclose(*same, atol=1e-5)
    assert batch["allowed"].shape[-1] == WIDTH


def test_conditions_change_what_comes_out(trained: TrainedModel) -> None:
    """Asked for a high density, the model writes denser crystals than asked for a low one."""
    densities = []
    for target in (2.2, 6.0):
        request = SampleRequest(
            24, 2, Conditions(properties={"density": target}), temperature=0.7, guidance=1.0
        )
        crystals = trained.architecture.sample(trained.module, trained.statistics, request)
        densities.append(sum(one.density for one in crystals) / len(crystals))
    assert densities[0] < densities[1] - 0.5


def test_a_penalty_chooses_among_endings(trained: TrainedModel) -> None:
    """Asked for little room, texts get smaller cells than asked for much."""
    volumes = []
    for target in (5.0, 40.0):
        request = SampleRequest(8, 3, temperature=1.5, penalty=Volume(target=target))
        crystals = trained.architecture.sample(trained.module, trained.statistics, request)
        volumes.append(sum(one.volume / len(one) for one in crystals) / len(crystals))
    assert volumes[0] < volumes[1]


def test_same_request_same_crystals(trained: TrainedModel) -> None:
    """The seed is the only source of randomness."""
    request = SampleRequest(count=6, seed=7, guidance=1.0, conditions=Conditions(n_atoms=6))
    again = [draw(trained, request).structures for _ in range(2)]
    assert again[0] == again[1]


def test_elements_that_fit_alone_may_not_fit_together() -> None:
    """Two positions of one atom in rock salt's group hold two elements of one atom, not three."""
    assert fits(225, frozenset(), 0, (1, 1))
    assert not fits(225, frozenset(), 0, (1, 1, 1))
    assert fits(225, frozenset(), 0, (1, 2, 1))
    assert not fits(225, frozenset({0}), 0, (1, 1))
