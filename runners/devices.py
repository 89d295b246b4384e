"""Devices: the one that a user names, or the best that is there."""

from __future__ import annotations

import re

import torch


class NoDevice(ValueError):
    """A device that is not there, or a word that names none; the message says what to do."""


def device_named(name: str) -> str:
    """The device of a name: auto, cpu, mps, cuda or cuda:N.

    "auto" is CUDA if there, else Apple's GPU, else the CPU. Raises NoDevice.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", name):
        raise NoDevice(f"device {name!r}: expected auto, cpu, mps, cuda or cuda:N")
    if name == "mps" and not torch.backends.mps.is_available():
        raise NoDevice("device mps: torch sees no GPU of Apple's here; take the device cpu")
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise NoDevice(
            f"device {name}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; take the device "
            "cpu, or install a CUDA build of torch"
        )
    return name


def devices(device: str, jobs: int, each: int) -> list[str]:
    """A device for each cell that may run at a time: `jobs` of the CPU, `each` of every CUDA device, or of the one that
    is named, and one of Apple's."""
    if device == "cpu":
        return ["cpu"] * jobs
    if device != "cuda":
        return [device] * (each if device.startswith("cuda") else 1)
    return [f"cuda:{number}" for _ in range(each) for number in range(torch.cuda.device_count())] or [device]
