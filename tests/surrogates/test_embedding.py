"""CHGNet's latent features as a representation."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matloop.surrogates.embedding import LENGTH, embed_all
from matloop.surrogates.representations import feature_names, represent

ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)


def test_embeddings_are_properties_of_the_crystal():
    """Cell, origin and order do not matter; strain and composition do; bad crystals harm nobody."""
    primitive = ROCK_SALT.get_primitive_structure()
    moved = primitive.copy()
    moved.translate_sites([0, 1], [0.13, 0.21, 0.34])
    strained = primitive.copy()
    strained.scale_lattice(1.2 * primitive.volume)
    other = primitive.copy()
    other.replace_species({"Na": "K"})
    broken = primitive.copy()
    broken.lattice = Lattice(np.full((3, 3), np.nan))
    transuranium = Structure(Lattice.cubic(4.0), ["Cf"], [[0, 0, 0]])
    features, failures = embed_all(
        [primitive, ROCK_SALT, moved, strained, other, broken, transuranium]
    )
    assert features.shape == (7, LENGTH)
    assert sorted(failures) == [5, 6]
    assert "no element beyond" in failures[6]
    assert features[1] == pytest.approx(features[0], abs=1e-3)
    assert features[2] == pytest.approx(features[0], abs=1e-3)
    assert np.abs(features[3] - features[0]).max() > 0.01
    assert np.abs(features[4] - features[0]).max() > 0.01
    alone, _ = embed_all([other])
    assert (alone[0] == features[4]).all()
    whole, reasons = represent("chgnet", [primitive, broken])
    assert whole.shape == (2, len(feature_names("chgnet")))
    assert np.isfinite(whole[0]).all()
    assert sorted(reasons) == [1]
