"""Ends a fit by a stopping rule, and keeps the image that the rule chooses."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.dataset import build_trace
from dipkernels.fitting.record import Record
from dipkernels.stopping import NotApplicableError, Rule, TooShortError
from dipkernels.stopping.panel import single_runs

logger = logging.getLogger(__name__)


class Stopper:
    """Asks a rule about every run at the end of each block of the record.

    A rule sees whole blocks, so that a fit may go on for up to 50 iterations after the rule has
    fired; what it has chosen is exact.
    """

    def __init__(self, rule: Rule, record: Record) -> None:
        if rule.needs_truth:
            raise InvalidInputError(
                f"the rule '{rule.name}' looks at the clean image and can't end a fit: use it in "
                "stopping_panel, and another one here"
            )
        self.rule, self._record = rule, record
        self.chosen = np.full(record.runs, -1)
        self.fired = np.full(record.runs, -1)
        self.images: Tensor | None = None
        self._block: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Hold an image of every run until the rule is asked."""
        self._block.append(images.clone())
        if self.images is None:
            self.images = torch.full_like(images, torch.nan)

    def check(self) -> bool:
        """Ask the rule about every run that it hasn't stopped yet."""
        if not self._record.iterations:
            return False
        ended = self._record.table()[-1, :, 0] == 0
        if not self._block:
            return bool(((self.fired >= 0) | ended).all())
        first = self._record.iterations - len(self._block)
        trace = build_trace(self._record, many=(True, True)).assign_attrs(
            score_region=self._record.score_region,
            noise_sigma=[task.noise_sigma / task.data_range for task in self._record.tasks],
        )
        for run, (_, one) in enumerate(single_runs(trace)):
            if self.fired[run] >= 0 or not bool(one.loss.notnull().any()):
                continue
            try:
                decision = self.rule.decide(one)
            except TooShortError:
                continue
            except NotApplicableError as error:
                text = f"the rule '{self.rule.name}' can't stop this fit: {error}"
                raise NotApplicableError(text) from error
            if decision.chosen != self.chosen[run]:
                self._keep(run, decision.chosen, first)
            if decision.stopped is None:
                continue
            self.fired[run] = decision.stopped
            logger.info(
                "the rule '%s' stops run %d at iteration %d and keeps the image of %d",
                *(self.rule.name, run, decision.stopped, decision.chosen),
            )
        self._block.clear()
        return bool(((self.fired >= 0) | ended).all())

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs."""
        block = torch.stack(self._block) if self._block else None
        return {"chosen": self.chosen, "fired": self.fired, "images": self.images, "block": block}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the stopper that gave this state."""
        device = self._record.tasks[0].measurement.device
        self.chosen, self.fired = state["chosen"], state["fired"]
        self.images = None if state["images"] is None else state["images"].to(device)
        block = state["block"]
        self._block = [] if block is None else list(block.to(device).unbind())

    # A rule may only choose what it chose before, or an image of the last block: others are gone.
    def _keep(self, run: int, chosen: int, first: int) -> None:
        self.chosen[run] = chosen
        if self.images is not None:
            here = 0 <= chosen - first < len(self._block)
            self.images[run] = self._block[chosen - first][run] if here else torch.nan
