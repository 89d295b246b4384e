"""Freed memory, kept in the process: the next training step needs it again."""

from __future__ import annotations

import torch


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 32 MiB. With another C library this does nothing.

    glibc gives large blocks back to the system when they are freed. To get their pages again can cost as much as the
    arithmetic of a step. When glibc frees a mapped block, it learns to keep blocks up to that size, at most 32 MiB
    (mallopt(3), M_MMAP_THRESHOLD). So one such block is freed here.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
