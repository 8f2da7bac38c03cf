"""VASP through atomate2's own Makers: flows of the Materials Project, with verdicts on top."""
