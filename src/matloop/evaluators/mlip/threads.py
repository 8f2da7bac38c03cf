"""One thread per process: many small tensors gain nothing from more, and lose much.

With its default of one thread per core, torch spent 6 to 8 times the processor time of one thread
on the same step when the machine had other work. Cores are used by worker processes instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, in torch and in the libraries under NumPy, and restore the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
