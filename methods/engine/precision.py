"""Precision: what a device can compute in."""

from __future__ import annotations

import torch


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no wider kind."""
    return torch.float32 if device.type == "mps" else torch.float64
