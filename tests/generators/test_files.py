"""The user's files as proposals: order, sampling, and what is said of bad files."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import structure_digest
from matloop.documents.space import ChemicalSpace
from matloop.errors import ConfigurationError
from matloop.generators.files import StructureFiles
from matloop.protocols import Generator, Proposal, ProposalRequest
from matloop.registry import build, parameters

SPACE = ChemicalSpace(system="Mg-O")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty crystals, told apart by their lattice parameter."""
    path = tmp_path_factory.mktemp("originals")
    for index in range(20):
        crystal = Structure(
            Lattice.cubic(2.5 + index / 50), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        )
        crystal.to(str(path / f"mgo{index:02d}.cif"))
    return path


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    """Return a copy of the crystals that a test may change."""
    return Path(shutil.copytree(originals, tmp_path / "folder"))


def request(count: int, seed: int) -> ProposalRequest:
    """Ask for crystals."""
    return ProposalRequest(SPACE, count, seed)


def names(proposals: list[Proposal]) -> list[str]:
    """Return the records proposed."""
    return [str(proposal.parameters["record"]) for proposal in proposals]


def test_it_is_a_registered_generator(folder: Path) -> None:
    """It is found by name, is checked, and documents its parameters."""
    generator = build("generators", "files", {"paths": [str(folder)]})
    assert isinstance(generator, Generator)
    assert all(parameter.doc for parameter in parameters("generators", "files"))
    with pytest.raises(ConfigurationError, match="paths is empty"):
        build("generators", "files", {"paths": []})


def test_a_sample_depends_on_the_seed_alone(folder: Path) -> None:
    """Equal seeds give equal samples, other seeds others, and none repeats a crystal."""
    generator = StructureFiles([str(folder)])
    first = names(generator.propose(request(8, 1)))
    assert first == names(StructureFiles.from_dict(generator.as_dict()).propose(request(8, 1)))
    assert first != names(generator.propose(request(8, 2)))
    assert len(set(first)) == 8


def test_iterations_cover_the_files(folder: Path) -> None:
    """Five requests of eight see most of twenty files: 1 - (12/20)^5 is 92 %."""
    generator = StructureFiles([str(folder)])
    seen = {name for seed in range(5) for name in names(generator.propose(request(8, seed)))}
    assert len(seen) >= 16


def test_the_whole_set_is_proposed_once(folder: Path) -> None:
    """Asking for more than there is gives each crystal once, fewer than asked for."""
    for shuffle in (True, False):
        found = names(StructureFiles([str(folder)], shuffle=shuffle).propose(request(50, 3)))
        assert sorted(found) == [f"mgo{index:02d}" for index in range(20)]
        assert (found == sorted(found)) is not shuffle


def test_unshuffled_takes_a_window_that_wraps(folder: Path) -> None:
    """Neighbours stay together, and windows of different seeds begin at different places."""
    generator = StructureFiles([str(folder)], shuffle=False)
    starts = set()
    for seed in range(6):
        numbers = [int(name[3:]) for name in names(generator.propose(request(5, seed)))]
        assert numbers == [(numbers[0] + step) % 20 for step in range(5)]
        starts.add(numbers[0])
    assert len(starts) > 2


def test_the_same_crystal_in_two_files_is_proposed_once(folder: Path) -> None:
    """A copy under another name is not paid for twice within a request."""
    copy = folder / "copy.cif"
    copy.write_text((folder / "mgo07.cif").read_text())
    proposals = StructureFiles([str(folder)]).propose(request(50, 0))
    digests = [structure_digest(proposal.structure) for proposal in proposals]
    assert len(digests) == len(set(digests)) == 20


def test_the_origin_is_told(folder: Path) -> None:
    """Each proposal says which file, and which record in it, it is."""
    salt = Structure(Lattice.cubic(3.0), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    file = folder / "list.json"
    file.write_text(json.dumps([salt.as_dict()]))
    (proposal,) = StructureFiles([str(file)]).propose(request(1, 0))
    assert proposal.parameters == {"file": str(file), "record": "list-0"}


def test_bad_files_are_logged_and_the_rest_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken file is named once with its reason; the good ones are proposed."""
    (folder / "broken.cif").write_text("nothing")
    generator = StructureFiles([str(folder)])
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            assert len(generator.propose(request(50, seed))) == 20
    assert caplog.text.count("broken.cif is set aside") == 1


def test_a_changed_file_is_read_again(folder: Path) -> None:
    """Files added between iterations are proposed in the next one."""
    generator = StructureFiles([str(folder)])
    assert len(generator.propose(request(50, 0))) == 20
    (folder / "mgo20.cif").write_text(
        (folder / "mgo19.cif").read_text().replace("2.88000000", "2.95000000")
    )
    assert len(generator.propose(request(50, 0))) == 21


def test_proposals_can_be_changed_without_harm(folder: Path) -> None:
    """A caller who edits a proposal does not edit what is proposed next."""
    generator = StructureFiles([str(folder)])
    first = generator.propose(request(1, 0))[0].structure
    volume = first.volume
    first.scale_lattice(1.0)
    assert generator.propose(request(1, 0))[0].structure.volume == pytest.approx(volume)


def test_nothing_usable_is_a_mistake(tmp_path: Path) -> None:
    """No file, or none that can be used, stops the campaign with the reasons."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        StructureFiles([str(tmp_path / "nowhere")]).propose(request(1, 0))
    (tmp_path / "bad.cif").write_text("nothing")
    with pytest.raises(ConfigurationError, match=r"bad\.cif.*no block with atoms"):
        StructureFiles([str(tmp_path)]).propose(request(1, 0))
