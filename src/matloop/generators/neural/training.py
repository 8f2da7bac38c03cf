"""The one training loop: resumable, killable, validated after every epoch."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from matloop import registry
from matloop.atomic import whole_file
from matloop.errors import ConfigurationError
from matloop.generators.neural.architecture import Architecture, Batch, Row, Statistics
from matloop.generators.neural.crystals import TrainingData
from matloop.generators.neural.model_file import Metric, ModelCard, hyperparameters, write_model
from matloop.generators.neural.training_settings import (
    TrainingSettings,
    torch_device,
    torch_threads,
)

_WINDOW = 32  # batches among which crystals are sorted by size, so that little is padding

BETAS = (0.9, 0.98)
"""Decay of the two moments of Adam, unless an architecture has others."""

CHECKPOINT_SECONDS = 120.0
"""Longest time of training that a kill may cost (s), and the rest of the batch in flight."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data came to.

    Attributes
    ----------
    number
        Counted from 1.
    train, validation
        Mean losses; the second of the averaged weights.
    seconds
        Time trained so far, earlier runs included (s).
    best
        Whether no earlier epoch had a lower validation loss.
    """

    number: int
    train: float
    validation: float
    seconds: float
    best: bool


@dataclass
class _Progress:
    """Where training stands: everything a checkpoint holds besides weights."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float = math.inf
    since_best: int = 0
    total: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    architecture: Architecture,
    data: TrainingData,
    settings: TrainingSettings,
    output: Path,
    *,
    licence: str = "",
    properties: Sequence[str] = (),
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> ModelCard:
    """Train a model and write it after every epoch that is the best so far.

    A checkpoint lies beside the model while training lasts. Called again with the same arguments,
    training goes on from it and ends as it would have without the interruption.

    Parameters
    ----------
    architecture
        What is trained.
    data
        Crystals.
    settings
        How.
    output
        The model file.
    licence
        Licence of the data, for the card.
    properties
        Properties the model may be asked for.
    on_epoch
        Told of every epoch.
    on_step
        Told the batches done and those of the whole epoch.

    Returns
    -------
    ModelCard
        Of the best model.

    Raises
    ------
    ConfigurationError
        If the device is not there, or no crystal can be encoded.
    """
    with torch_threads(settings.threads):
        run = _Run(architecture, data, settings, output, licence, tuple(properties))
        return run.finish(on_epoch, on_step)


class _Run:
    def __init__(
        self,
        architecture: Architecture,
        data: TrainingData,
        settings: TrainingSettings,
        output: Path,
        licence: str,
        properties: tuple[str, ...],
    ) -> None:
        self.architecture, self.data, self.settings = architecture, data, settings
        self.output, self.licence, self.properties = output, licence, properties
        self.checkpoint = output.with_name(output.name + ".checkpoint")
        self.device = torch_device(settings.device)
        self.statistics: Statistics = architecture.statistics(data.train)
        self.train_rows, lost = self._encoded(data.train)
        self.validation_rows, _ = self._encoded(data.validation)
        for rows, given, purpose in (
            (self.train_rows, data.train, "learn from"),
            (self.validation_rows, data.validation, "validate"),
        ):
            if not rows:
                raise ConfigurationError(
                    f"none of the {len(given)} crystals to {purpose} can be written as "
                    f"{type(architecture).__name__}"
                )
        self.sizes = np.array(
            [sum(array.size for array in row.values()) for row in self.train_rows]
        )
        self.left_out = {**data.left_out, **({"not encodable": lost} if lost else {})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.module = architecture.build(self.statistics).to(self.device)
        self.average = {n: v.detach().clone() for n, v in self.module.state_dict().items()}
        self.optimizers = {
            part: torch.optim.AdamW(
                self._part(part).parameters(),
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                betas=getattr(architecture, "betas", BETAS),
            )
            for part in dict.fromkeys(architecture.parts)
        }
        self.progress = _Progress()
        self.card: ModelCard | None = None
        self._resume()

    @property
    def batches(self) -> int:
        window = _WINDOW * self.settings.batch_size
        whole, rest = divmod(len(self.train_rows), window)
        return whole * _WINDOW + math.ceil(rest / self.settings.batch_size)

    def finish(
        self, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, int], None]
    ) -> ModelCard:
        settings, progress = self.settings, self.progress
        while progress.epoch < settings.epochs and not self._is_over():
            complete = self._train_epoch(on_step)
            progress.epoch += 1
            train_loss = progress.total / max(progress.batch, 1)
            progress.batch, progress.total = 0, 0.0
            on_epoch(self._validate(train_loss))
            self._save()
            if not complete:
                break
        self.checkpoint.unlink(missing_ok=True)
        assert self.card is not None
        return self.card

    def _is_over(self) -> bool:
        settings, progress = self.settings, self.progress
        tired = 0 < settings.patience <= progress.since_best
        return tired or 0 < settings.minutes * 60 <= progress.seconds

    def _train_epoch(self, on_step: Callable[[int, int], None]) -> bool:
        """Train to the end of the epoch; False if time ran out before it."""
        progress, limit = self.progress, self.settings.minutes * 60
        order, saved = self._order(), time.monotonic()
        self.module.train()
        while progress.batch < self.batches:
            started = time.monotonic()
            chosen = order[progress.batch]
            progress.total += self._step([self.train_rows[index] for index in chosen])
            progress.batch += 1
            progress.step += 1
            now = time.monotonic()
            progress.seconds += now - started
            on_step(progress.batch, self.batches)
            if now - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = now
            if 0 < limit <= progress.seconds:
                return progress.batch == self.batches
        return True

    def _order(self) -> list[NDArray[np.int64]]:
        """Return the batches of this epoch: shuffled, but with crystals of like size together."""
        rng = np.random.default_rng((self.settings.seed, self.progress.epoch))
        order, size = rng.permutation(len(self.train_rows)), self.settings.batch_size
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), _WINDOW * size):
            window = order[start : start + _WINDOW * size]
            window = window[np.argsort(self.sizes[window], kind="stable")]
            batches += [window[first : first + size] for first in range(0, len(window), size)]
        return [batches[index] for index in rng.permutation(len(batches))]

    def _step(self, rows: list[Row]) -> float:
        settings, step = self.settings, self.progress.step
        rng = np.random.default_rng((settings.seed, 1, step))
        batch = self._batch(rows, rng)
        shown = 0.0
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**31)))  # dropout knows no other generator
            for part in self.architecture.parts:
                optimizer = self.optimizers[part]
                generator = self._generator(int(rng.integers(2**31)))
                for group in optimizer.param_groups:
                    group["lr"] = self._learning_rate()
                loss = self.architecture.loss(self.module, batch, part, generator)["loss"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                norm = nn.utils.clip_grad_norm_(self._part(part).parameters(), settings.clip)
                if torch.isfinite(norm):  # one absurd batch must not end a training of hours
                    optimizer.step()
                shown += float(loss.detach()) if torch.isfinite(loss) else 0.0
        self._update_average()
        return shown

    def _learning_rate(self) -> float:
        settings, progress = self.settings, self.progress
        done = progress.step / (settings.epochs * self.batches)
        if settings.minutes:
            done = max(done, progress.seconds / (settings.minutes * 60))
        warm = min(1.0, (progress.step + 1) / max(settings.warmup, 1))
        return settings.learning_rate * warm * (0.505 + 0.495 * math.cos(math.pi * min(done, 1.0)))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early averages forget faster, so that they do not remember the random start.
        decay = min(self.settings.average, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.module.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _validate(self, train_loss: float) -> Epoch:
        progress = self.progress
        current = {n: v.detach().clone() for n, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        self.module.eval()
        totals: dict[str, float] = {}
        for index, rows in enumerate(_pieces(self.validation_rows, self.settings.batch_size)):
            generator = self._generator(index)
            with torch.no_grad() if self.architecture.parts == ("",) else torch.enable_grad():
                for part in dict.fromkeys(self.architecture.parts):
                    found = self.architecture.loss(
                        self.module, self._batch(rows, None), part, generator
                    )
                    for name, value in found.items():
                        totals[name] = totals.get(name, 0.0) + float(value.detach()) * len(rows)
        count = len(self.validation_rows)
        losses = {name: total / count for name, total in totals.items()}
        loss = losses["loss"]
        better = loss < progress.best or self.card is None
        progress.best = min(progress.best, loss)
        progress.since_best = 0 if better else progress.since_best + 1
        progress.history.append({"epoch": progress.epoch, "train": train_loss, "validation": loss})
        if better:
            metrics = {
                f"validation_{name}": Metric(value=value, denominator=count)
                for name, value in losses.items()
            }
            self.card = self._card(metrics)
            write_model(self.output, self.card, self.module)
        self.module.load_state_dict(current)
        return Epoch(progress.epoch, train_loss, loss, progress.seconds, better)

    def _card(self, metrics: dict[str, Metric]) -> ModelCard:
        name = registry.name_of("architectures", self.architecture)
        on = "cpu" if self.device.type == "cpu" else torch.cuda.get_device_name(self.device)
        return ModelCard(
            architecture=name,
            parameters=hyperparameters(self.architecture),
            statistics=self.statistics,
            data=self.data.source,
            data_sha256=self.data.sha256,
            licence=self.licence,
            n_train=len(self.train_rows),
            n_validation=len(self.validation_rows),
            left_out=self.left_out,
            properties=self.properties,
            seed=self.settings.seed,
            epochs=self.progress.epoch,
            steps=self.progress.step,
            seconds=round(self.progress.seconds, 1),
            device=on,
            n_parameters=sum(p.numel() for p in self.module.parameters()),
            metrics=metrics,
            history=self.progress.history,
            versions={"matloop": version("matloop"), "torch": str(torch.__version__)},
        )

    def _encoded(self, crystals: Sequence[Any]) -> tuple[list[Row], int]:
        rows = [self.architecture.encode(crystal, self.statistics) for crystal in crystals]
        kept = [row for row in rows if row is not None]
        return kept, len(rows) - len(kept)

    def _batch(self, rows: Sequence[Row], rng: np.random.Generator | None) -> Batch:
        batch = self.architecture.collate(rows, self.statistics, rng)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _part(self, part: str) -> nn.Module:
        return self.module.get_submodule(part) if part else self.module

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.device).manual_seed(seed)

    def _fingerprint(self) -> str:
        """Return what must be equal for a checkpoint to be gone on with."""
        same = {
            "architecture": hyperparameters(self.architecture),
            "name": registry.name_of("architectures", self.architecture),
            "settings": {
                k: v for k, v in asdict(self.settings).items() if k not in ("device", "threads")
            },
            "data": self.data.sha256,
            "rows": len(self.train_rows),
        }
        return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()

    def _save(self) -> None:
        content = {
            "fingerprint": self._fingerprint(),
            "progress": asdict(self.progress),
            "module": self.module.state_dict(),
            "average": self.average,
            "optimizers": {part: one.state_dict() for part, one in self.optimizers.items()},
            "card": self.card.model_dump_json() if self.card else "",
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with whole_file(self.checkpoint) as partial:
            partial.write_bytes(buffer.getvalue())

    def _resume(self) -> None:
        if not self.checkpoint.is_file():
            return
        try:
            found = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            same = found["fingerprint"] == self._fingerprint()
        except Exception:  # torch raises many kinds for damaged files
            same = False
        if not same:
            raise ConfigurationError(
                f"{self.checkpoint} is of another training, or damaged; remove it, or name another "
                "output"
            )
        self.progress = _Progress(**found["progress"])
        self.module.load_state_dict(found["module"])
        self.average = found["average"]
        for part, optimizer in self.optimizers.items():
            optimizer.load_state_dict(found["optimizers"][part])
        self.card = ModelCard.model_validate_json(found["card"]) if found["card"] else None


def _pieces(rows: Sequence[Row], size: int) -> Iterator[list[Row]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])
