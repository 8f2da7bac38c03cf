"""GPAW in plane waves: an open DFT engine that a pip install brings along."""

from matloop.engines.gpaw.engine import Gpaw

__all__ = ["Gpaw"]
