"""Modules that the fork server loads once, so that its child processes need not. No user's file is among them."""

from __future__ import annotations

import torch
from arviz_stats.base import array_stats

from gapbench.methods.engine import dp_sgd
from gapbench.runners import complete, make_references, suites

__all__ = ["array_stats", "complete", "dp_sgd", "make_references", "suites"]

torch.optim.Adam([torch.zeros(1)])  # the first use of an optimiser imports half of torch
