"""Closed-loop inverse design of crystalline materials on the jobflow ecosystem."""

from importlib.metadata import version

__version__ = version("matloop")
