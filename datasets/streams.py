"""Random streams derived from content: the same words give the same stream, on any run and in any order."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch


def stream(*content: object) -> np.random.Generator:
    """A numpy generator for this content, e.g. stream("GappedSine", seed, replica, "noise")."""
    digest = hashlib.sha256(json.dumps([str(part) for part in content]).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(np.frombuffer(digest, np.uint32).tolist()))


def torch_stream(device: torch.device | str, *content: object) -> torch.Generator:
    """A torch generator on `device` for this content."""
    return torch.Generator(device).manual_seed(int(stream(*content).integers(2**63)))
