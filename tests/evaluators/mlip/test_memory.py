"""Batches bounded by memory: what is measured, what is allowed, what happens when it runs out."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.core import Structure

from matloop.evaluators.mlip import memory
from matloop.evaluators.mlip.chgnet import ChgnetModel, LoadedChgnet
from matloop.evaluators.mlip.memory import (
    Budget,
    free_host_memory,
    memory_errors,
    predict_in_pieces,
)
from matloop.evaluators.mlip.minimisation import minimise
from matloop.evaluators.mlip.model import Member, Prediction

CPU = torch.device("cpu")


def crystals(count: int) -> list[Member]:
    return [Member(np.full(k + 1, 29), np.zeros((k + 1, 3)), np.eye(3)) for k in range(count)]


def echo(members: list[Member]) -> Prediction:
    """Answer each crystal with its number of atoms."""
    counts = [len(member.numbers) for member in members]
    energies = np.array(counts, dtype=float)
    forces = np.repeat(energies, counts)[:, None] * np.ones(3)
    return Prediction(energies, forces, energies[:, None, None] * np.ones((3, 3)))


def test_what_a_message_takes_is_measured() -> None:
    """The first piece is measured to the byte, temporaries that are gone again included."""
    budget = Budget(CPU, 10**9)
    assert budget.limit == memory.PROBE
    with budget.measured(1000):
        kept = torch.zeros(1_000_000)
        kept = kept + (kept + 1.0)  # three of 4 MB at the peak
        array = np.zeros(250_000)  # and 2 MB of NumPy
    assert budget.bytes_per_message == pytest.approx((12e6 + 2e6) / 1000, rel=0.02)
    allowed = memory.memory_allowance(CPU) / budget.bytes_per_message
    assert budget.limit == pytest.approx(min(allowed, 1e9), rel=0.2)
    before = budget.limit
    with budget.measured(3000):
        torch.zeros(1_000_000)
    assert budget.limit == before
    with budget.measured(5000):
        torch.zeros(1_000_000)
    assert budget.bytes_per_message == pytest.approx(4e6 / 5000, rel=0.02)
    assert len(array) + len(kept)


def test_scarce_memory_makes_small_pieces(
    monkeypatch: pytest.MonkeyPatch, compounds: list[Structure]
) -> None:
    """Where only a megabyte is free, CHGNet's pieces shrink to it and its numbers stay."""
    plenty = LoadedChgnet(ChgnetModel())
    members = [Member.from_structure(structure) for structure in compounds]
    expected = plenty.predict(members)
    need = plenty.budget.bytes_per_message
    assert need is not None
    assert 500 < need < 50_000
    monkeypatch.setattr(memory, "memory_allowance", lambda device: 2000 * need)
    scarce = LoadedChgnet(ChgnetModel())
    scarce.predict(members[:1])
    assert scarce.budget.limit < 2000  # what is fixed weighs on a small piece
    scarce.predict(members)
    scarce.predict(members)
    assert scarce.budget.limit == pytest.approx(2000, rel=0.3)
    found = scarce.predict(members)
    np.testing.assert_allclose(found.energies, expected.energies, atol=2e-5)
    np.testing.assert_allclose(found.forces, expected.forces, atol=2e-4)


def test_a_piece_that_does_not_fit_is_halved() -> None:
    """Every crystal that fits alone is computed, in order; the one that does not is named."""
    sizes: list[int] = []

    def compute(members: list[Member]) -> Prediction:
        atoms = sum(len(member.numbers) for member in members)
        sizes.append(atoms)
        if atoms > 6:
            raise MemoryError
        return echo(members)

    budget = Budget(CPU, 1000)
    members = crystals(7)
    messages = [len(member.numbers) for member in members]
    found = predict_in_pieces(members, messages, {2: "broken"}, budget, compute)
    assert found.faults == {2: "broken", 6: "out of memory"}
    expected = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, np.nan])
    np.testing.assert_array_equal(found.energies, expected)
    np.testing.assert_array_equal(found.forces[:, 0], np.repeat(expected, messages))
    assert budget.limit < 10
    assert sum(size > 6 for size in sizes) < 6
    sizes.clear()
    predict_in_pieces(members[:6], messages[:6], {}, budget, compute)
    assert max(sizes) <= 7  # what was learned is kept


def test_pieces_are_few_and_similar() -> None:
    """A batch is cut into the fewest pieces of similar size that keep to the limit."""
    seen: list[int] = []

    def compute(members: list[Member]) -> Prediction:
        seen.append(sum(len(member.numbers) for member in members))
        return echo(members)

    budget = Budget(CPU, 40)
    members = [Member(np.full(4, 29), np.zeros((4, 3)), np.eye(3)) for _ in range(25)]
    predict_in_pieces(members, [4] * 25, {}, budget, compute)
    assert seen == [32, 36, 32] or (len(seen) == 3 and max(seen) <= 40)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    ],
)
def test_every_way_of_running_out_is_a_memory_error(error: RuntimeError) -> None:
    """Devices and hosts say it in different words; other errors stay what they are."""
    with pytest.raises(MemoryError), memory_errors():
        raise error
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        raise RuntimeError("shape mismatch")


def test_a_real_refusal_by_the_host_is_survived(compounds: list[Structure]) -> None:
    """When the system refuses memory, a relaxation with CHGNet goes on in smaller pieces."""
    model = LoadedChgnet(ChgnetModel())
    cubes = [structure * (2, 2, 1) for structure in compounds[:4]]
    expected = model.predict([Member.from_structure(s) for s in cubes])
    model.budget.limit = 10**9
    original = model._energies_and_pulls
    refused = []

    def hungry(members: list[Member], graph: object) -> object:
        if len(members) > 1:
            refused.append(len(members))
            torch.empty(2**50, dtype=torch.uint8)  # a petabyte
        return original(members, graph)  # type: ignore[arg-type]

    model._energies_and_pulls = hungry  # type: ignore[assignment, method-assign]
    found = minimise(model, [Member.from_structure(s) for s in cubes], max_steps=1)
    assert refused[0] == 4
    assert [end.fault for end in found] == [""] * 4
    np.testing.assert_allclose([e.first_energy for e in found], expected.energies, atol=1e-4)


def test_free_memory_is_what_the_tightest_limit_leaves(tmp_path: Path) -> None:
    """A cgroup of a job, version 1 or 2 and nested, counts as much as the machine."""
    group = tmp_path / "sys/fs/cgroup/slurm/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000 kB\n")
    own = tmp_path / "proc/self/cgroup"
    own.write_text("0::/slurm/job\n")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert free_host_memory(tmp_path) == 8000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000000\n")
    assert free_host_memory(tmp_path) == 8000 * 1024
    (group.parent / "memory.max").write_text("7000000\n")
    (group.parent / "memory.current").write_text("5000000\n")
    assert free_host_memory(tmp_path) == 2_000_000
    old = tmp_path / "sys/fs/cgroup/memory/job"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("3000\n")
    (old / "memory.usage_in_bytes").write_text("2000\n")
    own.write_text("5:cpu:/job\n4:memory:/job\n0::/none\n")
    assert free_host_memory(tmp_path) == 1000
