"""Libraries of known crystals: incremental, shared, and whole whoever writes at the same time."""

import multiprocessing

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.documents.candidate import Candidate, Origin
from matloop.documents.phase import Known
from matloop.errors import ConfigurationError
from matloop.evaluators.novelty import Novelty
from matloop.protocols import Resources
from matloop.references.library import Library


def crystal(seed):
    """Return a random crystal of six atoms."""
    rng = np.random.default_rng(seed)
    lattice = Lattice.from_parameters(*rng.uniform(4, 5, 3), *rng.uniform(80, 100, 3))
    return Structure(lattice, ["Ti"] * 2 + ["O"] * 4, rng.random((6, 3)))


def known(*seeds):
    """Return known crystals."""
    return [Known(known_id=f"k{seed}", structure=crystal(seed)) for seed in seeds]


def judged(library, tmp_path, *structures):
    """Return what novelty says with nothing but the library."""
    path = tmp_path / "known"
    path.write_bytes(library.archive().to_bytes())
    candidates = [
        Candidate(candidate_id=f"c{i}", structure=s, origin=Origin(generator="toy"))
        for i, s in enumerate(structures)
    ]
    return Novelty().evaluate(candidates, Resources({"known": path}, {}, library.files()))


def test_crystals_added_in_parts_are_all_found(tmp_path):
    """Two libraries in one folder are one; what is there already is not added again."""
    folder = tmp_path / "library"
    assert len(Library(folder)) == 0
    assert Library(folder).add(known(*range(10))) == 10
    assert Library(folder).add(known(8, 9, 10)) == 1
    library = Library(folder)
    assert len(library) == 11
    found = judged(library, tmp_path, crystal(10) * [1, 2, 1], crystal(3), crystal(50))
    assert [evaluation.verdict for evaluation in found] == ["reject", "reject", "pass"]
    assert "matches known crystal k10 (ltol" in found[0].reason
    assert "matches no known crystal (ltol" in found[2].reason


def test_another_crystal_of_the_same_name_is_kept(tmp_path):
    """Files are often called alike: the crystal counts, not its name."""
    library = Library(tmp_path / "library")
    both = [Known(known_id="POSCAR", structure=crystal(seed)) for seed in (1, 2)]
    assert library.add(both) == 2
    assert len(judged(library, tmp_path, crystal(1), crystal(2))) == len(library) == 2


def add(folder, first):
    """Add ten crystals, some of which another process adds as well."""
    for start in range(first, first + 10, 2):
        Library(folder).add(known(start, start + 1))


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    """Four processes with overlapping crystals: each crystal is there, and once."""
    folder = tmp_path / "library"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add, args=(folder, first)) for first in (0, 5, 10, 15)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    library = Library(folder)
    assert len(library) == 25
    found = judged(library, tmp_path, *(crystal(seed) for seed in range(25)))
    assert {evaluation.verdict for evaluation in found} == {"reject"}


def test_a_broken_list_is_named(tmp_path):
    """A list that cannot be read is not taken for an empty library."""
    (tmp_path / "library.json.gz").write_bytes(b"nonsense")
    with pytest.raises(ConfigurationError, match="no list of known crystals"):
        Library(tmp_path).archive()
