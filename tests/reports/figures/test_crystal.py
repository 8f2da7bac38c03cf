"""Pictures show the atoms a reader expects."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.reports.figures.crystal import crystal_picture, gradients


def test_atoms_on_faces_edges_and_corners_are_repeated():
    """Rock salt shows 14 atoms of one kind (corners, faces) and 13 of the other (edges, centre)."""
    salt = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    picture = crystal_picture(salt)
    assert picture.shapes.count("url(#atom-Na)") == 14
    assert picture.shapes.count("url(#atom-Cl)") == 13
    assert picture.shapes.count('class="cell"') == 12


def test_ionic_crystals_show_bonds_between_unlike_atoms_only():
    """In perovskite each drawn bond joins a cation and an anion."""
    crystal = Structure.from_spacegroup(
        "Pm-3m",
        Lattice.cubic(3.9),
        ["Sr", "Ti", "O"],
        [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]],
    )
    shapes = crystal_picture(crystal).shapes
    assert shapes.count("<line x1") % 2 == 0
    assert shapes.count("<line x1") >= 2 * 24  # the Ti-O bonds along the edges


def test_the_picture_fits_its_box():
    """No atom is cut off, in a skewed and elongated cell either."""
    lattice = Lattice.from_parameters(3.1, 4.2, 14.0, 71, 83, 112)
    rng = np.random.default_rng(4)
    crystal = Structure(lattice, ["Mg"] * 4, rng.random((4, 3)))
    picture = crystal_picture(crystal)
    assert max(picture.width, picture.height) == pytest.approx(100.0)
    numbers = [
        dict(part.split("=", 1) for part in circle.split('" ')[0:3] if "=" in part)
        for circle in picture.shapes.replace('"/>', '" ').split("<circle ")[1:]
    ]
    for shape in numbers:
        x, y, r = (float(shape[name].strip('"')) for name in ("cx", "cy", "r"))
        assert r - 0.2 <= x <= picture.width - r + 0.2
        assert r - 0.2 <= y <= picture.height - r + 0.2


def test_gradients_are_defined_once_per_element():
    """Repeated elements share a definition."""
    markup = gradients(["O", "Sr", "O"])
    assert markup.count("<radialGradient") == 2
