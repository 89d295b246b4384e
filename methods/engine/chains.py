"""Chains: whether numbers along them have converged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def rhat(values: Tensor) -> Tensor:
    """The rank-normalised split R-hat (Vehtari et al. 2021), (R, ...), by arviz-stats; inf if it is not defined.

    values: (R, chains, draws, ...).
    """
    from arviz_stats.base import array_stats  # here, because it takes a second, and most commands need none

    if values.shape[1] < 2 or values.shape[2] < 4:
        return values.new_full((len(values), *values.shape[3:]), torch.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = array_stats.rhat(values.cpu().double().numpy(), method="rank", chain_axis=1, draw_axis=2)
    return torch.from_numpy(np.nan_to_num(np.asarray(found), nan=np.inf, posinf=np.inf)).to(values.device)
