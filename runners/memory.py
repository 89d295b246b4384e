"""Keeps freed memory in the process: what a training step frees, the next one needs again."""

from __future__ import annotations

import torch


def keep_freed_memory() -> None:
    """glibc gives large blocks back to the system whenever they are freed, and having their pages again can cost as
    much as the arithmetic of a step on them. It learns to keep blocks of the size of any mapped one that it sees freed,
    up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD): show it one. Elsewhere this does nothing."""
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
