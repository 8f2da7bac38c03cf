"""Reading a MACE model file without running what else a pickle may hold.

A ``.model`` file is a pickled object, and unpickling calls whatever the file names. Here only
classes of mace, e3nn and torch's layers may be named, plus a few functions; what a file brings as
source text (the einsums that e3nn writes down) is checked to be nothing but tensor algebra.
Compiled TorchScript inside a file is loaded as it is: it computes on tensors, yet it is a program,
so load files you have reason to trust.
"""

from __future__ import annotations

import ast
import importlib
import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from matloop.errors import ConfigurationError

_CLASSES = ("mace.modules.", "e3nn.", "torch.nn.modules.")
"""Packages whose classes a file may name."""

_NAMES = frozenset(
    {
        "torch.fx._symbolic_trace.Tracer",
        "torch.nn.functional.silu",
        "torch.nn.functional.relu",
        "torch.nn.functional.elu",
        "torch.nn.functional.gelu",
        "torch.nn.functional.softplus",
        "torch.tanh",
        "torch.sigmoid",
        "torch.relu",
        "torch.abs",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.dtypes.Float32DType",
        "numpy.dtypes.Float64DType",
        "numpy.dtypes.Int64DType",
        "builtins.slice",
    }
)
"""Whatever else it may name."""

_REDUCE = "torch.fx.graph_module.reduce_graph_module"

_IMPORTS = re.compile(
    r"(?:NoneType = type\(None\)|from math import (?:inf|nan)|from torch import device|import torch"
    r"|import torch\.(?:fx|utils)\._pytree as (?:fx_)?pytree|\s*)"
)
"""A line that torch.fx writes above its source."""

_FUNCTIONS = frozenset(
    f"torch.{prefix}{name}" for prefix in ("", "functional.") for name in ("einsum", "tensordot")
)
_METHODS = frozenset({"permute", "reshape", "view", "transpose", "unsqueeze", "squeeze", "mul"})
_NODES = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Return, ast.Expr),
    *(ast.Call, ast.keyword, ast.Name, ast.Load, ast.Store, ast.Attribute, ast.Constant),
    *(ast.Tuple, ast.List, ast.BinOp, ast.Mult, ast.Add, ast.Sub, ast.Div, ast.Pow),
    *(ast.UnaryOp, ast.USub),
)


def read_model(path: Path, *, trusted: bool = False) -> torch.nn.Module:
    """Return the network that a file holds, on the CPU.

    Parameters
    ----------
    path
        File that mace saved.
    trusted
        Unpickle it without any check, as mace itself does.

    Raises
    ------
    ConfigurationError
        If mace is not installed, the file cannot be read, or it names what no MACE needs.
    """
    import_mace()
    try:
        if trusted:
            found = torch.load(path, map_location="cpu", weights_only=False)
        else:
            with safe_globals(_allowed(path)):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"{path} is no MACE model file: {error}") from error
    if not isinstance(found, torch.nn.Module):
        raise ConfigurationError(
            f"{path} holds a {type(found).__name__}, no network; give the .model file of a training"
        )
    return found


def import_mace() -> None:
    """Import mace, and undo that it switches off torch's safe loading for the whole process."""
    with _environment_kept("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        try:
            importlib.import_module("mace.modules")
        except ImportError as error:
            raise ConfigurationError(
                f"the model mace needs mace-torch: pip install 'matloop[mace]' ({error})"
            ) from error


def checked_source(source: str) -> None:
    """Accept source text of tensor algebra, and nothing else.

    Raises
    ------
    ConfigurationError
        If the text could do more than multiply tensors.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise _refusal(f"a model file brings source with {type(node).__name__}")
        if isinstance(node, ast.FunctionDef) and (node.name != "forward" or node.decorator_list):
            raise _refusal(f"a model file brings a function {node.name}")
        if isinstance(node, ast.Attribute) and not _harmless(node):
            raise _refusal(f"a model file uses {ast.unparse(node)}")
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            raise _refusal(f"a model file calls {ast.unparse(node.func)}")


def _harmless(node: ast.Attribute) -> bool:
    """Return whether something with a dot is one of the functions, a method, or a tensor kept."""
    text = ast.unparse(node)
    if text in _FUNCTIONS or text == "torch.functional":
        return True
    if not isinstance(node.value, ast.Name) or node.value.id == "torch":
        return False
    return node.attr in _METHODS or (node.value.id == "self" and node.attr.startswith("_tensor"))


def _allowed(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what this file names, if it may."""
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for name in sorted(get_unsafe_globals_in_checkpoint(str(path))):
        if name == _REDUCE:
            allowed.append((_checked_reduce, _REDUCE))
            continue
        module, _, attribute = name.rpartition(".")
        if not (name in _NAMES or name.startswith(_CLASSES)):
            raise _refusal(f"{path} names {name}")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{path} needs {name}, which the installed mace does not have: {error}"
            ) from error
        if name not in _NAMES and not isinstance(found, type):
            known = callable(found) and attribute == "normalize2mom"
            if not known:
                raise _refusal(f"{path} names {name}")
        allowed.append((found, name))
    return allowed


def _checked_reduce(body: dict[str, Any], imports: str) -> torch.nn.Module:
    from torch.fx.graph_module import reduce_graph_module

    for line in imports.splitlines():
        if not _IMPORTS.fullmatch(line):
            raise _refusal(f"a model file wants to run {line!r}")
    checked_source(body.get("_code") or body["code"])
    return reduce_graph_module(body, imports)


def _refusal(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what}, which no MACE needs; if you trust the file, set its parameter trusted to true"
    )


@contextmanager
def _environment_kept(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
