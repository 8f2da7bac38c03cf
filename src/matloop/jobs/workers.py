"""Worker processes that evaluate chunks, stay warm, and may die without harming a campaign."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial

from matloop.documents.candidate import Candidate
from matloop.documents.evaluation import Evaluation
from matloop.errors import MatloopError
from matloop.protocols import Evaluator, Resources

Chunk = Sequence[Candidate]

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CORE_VARIABLES = ("MATLOOP_CORES", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
_POOLS: dict[int, ProcessPoolExecutor] = {}


def usable_cores() -> int:
    """Return the number of cores this process may use.

    SLURM without cgroups lets a job see every core of its node; it may use those it asked for.
    Several workers in one job share them: each is told its part in ``MATLOOP_CORES``.
    """
    told = (os.environ.get(name, "") for name in _CORE_VARIABLES)
    promised = [int(text) for text in told if text.isdigit() and int(text) > 0]
    return min([len(os.sched_getaffinity(0)), *promised])


def always(longest: float) -> bool:
    """Go on, whatever a chunk takes."""
    return True


def never(longest: float) -> bool:
    """Start nothing."""
    return False


def evaluate_chunks(
    evaluator: Evaluator,
    chunks: Sequence[Chunk],
    resources: Resources,
    workers: int,
    begin: Callable[[int, bool, Chunk], None] = lambda index, isolated, part: None,
    go_on: Callable[[float], bool] = always,
) -> Iterator[tuple[int, list[Evaluation]]]:
    """Evaluate chunks and yield (index, evaluations) of each as soon as it is done.

    A chunk that raises is evaluated again one candidate at a time; a chunk that kills its worker
    process likewise, alone in a fresh process. What still raises or kills becomes that
    candidate's ``fail`` verdict, with the reason.

    Parameters
    ----------
    evaluator
        Plugin, picklable.
    chunks
        Candidates to evaluate together.
    resources
        Artifact files the evaluator reads.
    workers
        Worker processes of one thread each; 0 works in this process.
    begin
        Told the index of a chunk before it, or a part of it, is evaluated; whether that happens
        in a process of its own; and the part.
    go_on
        Asked before every chunk, with the longest time one has taken so far (s). Once it says no,
        no chunk is started any more.

    Raises
    ------
    MatloopError
        If the evaluator finds fault with the campaign rather than with a candidate.
    """
    longest = 0.0
    if workers == 0:
        for index, chunk in enumerate(chunks):
            if not go_on(longest):
                return
            begin(index, False, chunk)
            started = time.monotonic()
            evaluations = evaluate_chunk(evaluator, chunk, resources)
            longest = max(longest, time.monotonic() - started)
            yield index, evaluations
        return
    waiting = deque(range(len(chunks)))
    flying: dict[Future[list[Evaluation]], tuple[int, float]] = {}
    while waiting or flying:
        suspects: list[int] = []
        while waiting and len(flying) < workers and not suspects:
            if not go_on(longest):
                waiting.clear()
                break
            index = waiting.popleft()
            begin(index, False, chunks[index])
            try:
                future = _submit(workers, evaluator, chunks[index], resources)
                flying[future] = index, time.monotonic()
            except BrokenProcessPool:
                suspects.append(index)
        done, _ = wait(flying, return_when=FIRST_COMPLETED) if flying else (set(), set())
        for future in done:
            index, started = flying.pop(future)
            longest = max(longest, time.monotonic() - started)
            try:
                yield index, future.result()
            except BrokenProcessPool:
                suspects.append(index)
        if suspects:  # whatever else was flying went down with the pool
            suspects += [index for index, _ in flying.values()]
            flying.clear()
            _discard(workers)
            for index in sorted(suspects):
                apart = partial(begin, index, True)
                yield index, evaluate_apart(evaluator, chunks[index], resources, apart)


def evaluate_chunk(evaluator: Evaluator, chunk: Chunk, resources: Resources) -> list[Evaluation]:
    """Evaluate candidates together, or one by one if together they raise."""
    try:
        evaluations = evaluator.evaluate(chunk, resources)
        asked = [candidate.candidate_id for candidate in chunk]
        answered = [evaluation.candidate_id for evaluation in evaluations]
        if asked != answered:
            raise RuntimeError(
                f"answered {len(answered)} of {len(asked)} candidates, or not in order"
            )
        return evaluations
    except MatloopError:
        raise
    except Exception as error:
        if len(chunk) > 1 and evaluator.scope == "candidate":
            return [
                evaluation
                for candidate in chunk
                for evaluation in evaluate_chunk(evaluator, [candidate], resources)
            ]
        return _failures(
            chunk, f"{type(evaluator).__name__} raised {type(error).__name__}: {error}"
        )


def evaluate_apart(
    evaluator: Evaluator,
    chunk: Chunk,
    resources: Resources,
    begin: Callable[[Chunk], None] = lambda part: None,
) -> list[Evaluation]:
    """Evaluate candidates of which one may kill its process: all in one, then each in its own.

    Parameters
    ----------
    evaluator, chunk, resources
        As for `evaluate_chunks`.
    begin
        Told what is about to be evaluated together.
    """
    begin(chunk)
    with _pool(1) as pool:
        try:
            return _start(pool, evaluator, chunk, resources).result()
        except BrokenProcessPool:
            pass
    name = type(evaluator).__name__
    reason = f"quarantined: {name} died twice with its worker process"
    if len(chunk) == 1 or evaluator.scope == "batch":
        return _failures(chunk, reason)
    pool, evaluations = _pool(1), []
    try:
        for candidate in chunk:
            begin([candidate])
            try:
                evaluations += _start(pool, evaluator, [candidate], resources).result()
            except BrokenProcessPool:
                pool = _pool(1)
                evaluations += _failures([candidate], reason)
        return evaluations
    finally:
        pool.shutdown()


def _failures(chunk: Chunk, reason: str) -> list[Evaluation]:
    return [
        Evaluation(candidate_id=candidate.candidate_id, verdict="fail", reason=reason)
        for candidate in chunk
    ]


def _submit(
    workers: int, evaluator: Evaluator, chunk: Chunk, resources: Resources
) -> Future[list[Evaluation]]:
    if workers not in _POOLS:
        _POOLS[workers] = _pool(workers)
    return _start(_POOLS[workers], evaluator, chunk, resources)


def _start(
    pool: ProcessPoolExecutor, evaluator: Evaluator, chunk: Chunk, resources: Resources
) -> Future[list[Evaluation]]:
    with _single_threaded_environment():  # processes are started by submitting
        return pool.submit(evaluate_chunk, evaluator, chunk, resources)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_watch_parent,
        initargs=(os.getpid(),),
    )


def _discard(workers: int) -> None:
    pool = _POOLS.pop(workers, None)
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)


@atexit.register
def _discard_all() -> None:
    for workers in list(_POOLS):
        _discard(workers)


@contextmanager
def _single_threaded_environment() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch_parent(parent: int) -> None:
    """Let a worker die with its campaign, which may be killed without a chance to say so."""
    logging.getLogger("moyo").setLevel(logging.ERROR)  # it warns of cells that are not primitive
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the campaign hears Ctrl-C

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
