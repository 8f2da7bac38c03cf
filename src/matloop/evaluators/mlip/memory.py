"""How much of a batch a model computes in one go: bounded by memory, as measured.

A model counts its *messages*: the edges or angles whose features it holds. What a message takes is
measured on the first pieces, and no piece may need more than a stated share of
the memory that is free then. A piece that still does not fit is computed again in halves.
"""

from __future__ import annotations

import os
import resource
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from matloop.evaluators.mlip.model import Member, Prediction

HOST_SHARE = 0.5
"""Part of a core's share of the free memory that one piece may take: one worker runs per core."""

DEVICE_SHARE = 0.8
"""Part of an accelerator's free memory that one piece may take."""

PROBE = 30_000
"""Most messages of the piece on which the need is measured."""


class Budget:
    """How many messages a model computes in one go.

    Attributes
    ----------
    limit
        Most messages of one piece, as known by now.
    bytes_per_message
        Memory one message takes at the peak of a prediction (bytes); None until measured.

    Parameters
    ----------
    device
        Where the model computes.
    preferred
        Most messages with which it is fast: few enough for a processor's caches, or as many as
        fill an accelerator.
    """

    def __init__(self, device: torch.device, preferred: int) -> None:
        self._device = device
        self._preferred = preferred
        self.limit = min(preferred, PROBE)
        self.bytes_per_message: float | None = None
        self._measured_on = 0

    @contextmanager
    def measured(self, messages: int) -> Iterator[None]:
        """Note what a piece of so many messages takes, and set the limit.

        It is done for the first piece, and again for one more than four times as large: small
        pieces look more expensive than they are.
        """
        if messages <= 4 * self._measured_on or messages == 0:
            yield
            return
        on_device = self._device.type == "cuda"
        with _device_peak(self._device) if on_device else _host_peak() as peak:
            yield
        self._measured_on = messages
        self.bytes_per_message = max(peak[0] / messages, 1.0)
        allowed = int(memory_allowance(self._device) / self.bytes_per_message)
        self.limit = max(1, min(self._preferred, allowed))

    def halve(self, messages: int) -> None:
        """Learn that a piece of so many messages did not fit."""
        self._preferred = self.limit = max(1, messages // 2)


def predict_in_pieces(
    members: Sequence[Member],
    messages: Sequence[int],
    faults: Mapping[int, str],
    budget: Budget,
    compute: Callable[[list[Member]], Prediction],
) -> Prediction:
    """Predict a batch in as few pieces of similar size as the budget allows.

    Parameters
    ----------
    members
        The batch.
    messages
        Messages of each member.
    faults
        Members that are not to be computed, and why.
    budget
        How large a piece may be; one that does not fit lowers it.
    compute
        Computes one piece; raises MemoryError if it does not fit.
    """
    energies = np.full(len(members), np.nan)
    stresses = np.full((len(members), 3, 3), np.nan)
    starts = np.concatenate([[0], np.cumsum([len(member.numbers) for member in members])]).tolist()
    forces = np.full((starts[-1], 3), np.nan)
    found_faults = dict(faults)
    waiting = [k for k in range(len(members)) if k not in faults]
    while waiting:
        piece = _first_piece(waiting, messages, budget.limit)
        size = sum(messages[k] for k in piece)
        try:
            with budget.measured(size):
                found = compute([members[k] for k in piece])
        except MemoryError:
            if len(piece) > 1:
                budget.halve(size)
                continue
            found_faults[piece[0]] = "out of memory"
            waiting = waiting[1:]
            continue
        waiting = waiting[len(piece) :]
        energies[piece], stresses[piece] = found.energies, found.stresses
        start = 0
        for place, k in enumerate(piece):
            stop = start + starts[k + 1] - starts[k]
            forces[starts[k] : starts[k + 1]] = found.forces[start:stop]
            start = stop
            if place in found.faults:
                found_faults[k] = found.faults[place]
    return Prediction(energies, forces, stresses, found_faults)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch raises when memory runs out, on any device, into MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from None
    except RuntimeError as error:
        if "not enough memory" in str(error) or "allocate memory" in str(error):
            raise MemoryError(str(error)) from None
        raise


def memory_allowance(device: torch.device) -> float:
    """Return how much memory one piece may take (bytes)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return DEVICE_SHARE * (free + idle)
    return HOST_SHARE * free_host_memory() / len(os.sched_getaffinity(0))


def free_host_memory(root: Path = Path("/")) -> float:
    """Return the memory this process may still take (bytes): the machine's, its cgroup's, its own.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are mounted.
    """
    limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            limits.append(1024.0 * float(line.split()[1]))
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        most, used = names if controllers else ("memory.max", "memory.current")
        if controllers and "memory" not in controllers.split(","):
            continue
        place = base / group.lstrip("/")
        while place != base.parent:
            maximum, current = (_lines(place / name) for name in (most, used))
            if maximum and current and maximum[0].isdigit():
                limits.append(float(maximum[0]) - float(current[0]))
            place = place.parent
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        for line in _lines(root / "proc/self/statm"):
            limits.append(float(soft) - float(line.split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    return max(min(limits), 0.0)


def _first_piece(waiting: list[int], messages: Sequence[int], limit: int) -> list[int]:
    """Return the first of the fewest pieces of similar size that keep to a limit."""
    sizes = np.array([messages[k] for k in waiting])
    total = int(sizes.sum())
    count = max(1, int(np.ceil(total / limit)))
    middles = np.cumsum(sizes) - sizes / 2
    places = np.minimum((middles * count / max(total, 1)).astype(int), count - 1)
    return [waiting[k] for k in np.flatnonzero(places == places[0])]


@contextmanager
def _device_peak(device: torch.device) -> Iterator[list[float]]:
    peak = [0.0]
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield peak
    peak[0] = float(torch.cuda.max_memory_allocated(device) - before)


@contextmanager
def _host_peak() -> Iterator[list[float]]:
    """Yield a list that holds the peak afterwards: of torch's tensors plus of NumPy's arrays."""
    peak = [0.0]
    ours = not tracemalloc.is_tracing()
    if ours:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    tensors = _TensorPeak()
    try:
        with tensors:
            yield peak
        arrays = tracemalloc.get_traced_memory()[1] - before
        peak[0] = float(tensors.peak + arrays)
    finally:
        if ours:
            tracemalloc.stop()


class _TensorPeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows how many bytes the tensors take that are made while it is active."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise the first use imports torch's compiler, which takes seconds

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live: dict[int, int] = {}
        self._held = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name in self._live:
            return
        self._live[name] = storage.nbytes()
        self._held += storage.nbytes()
        self.peak = max(self.peak, self._held)
        weakref.finalize(storage, self._forget, name)

    def _forget(self, name: int) -> None:
        self._held -= self._live.pop(name, 0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
