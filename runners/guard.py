"""Guards around code that is not ours, and around our own: what is set for the whole process stays where it was set."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Global settings and random streams of torch, numpy and the process are afterwards what they were before."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradients, threads = torch.is_grad_enabled(), torch.get_num_threads()
    products = torch.get_float32_matmul_precision()
    streams = torch.get_rng_state(), np.random.get_state(), random.getstate()
    errors, environment, folder = np.geterr(), dict(os.environ), os.getcwd()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.set_default_dtype(dtype)
        # A default device is a mode that lies on a stack; it is touched only if it was changed.
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(products)
        torch.set_rng_state(streams[0])
        np.random.set_state(streams[1])
        random.setstate(streams[2])
        np.seterr(**errors)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)


@contextmanager
def standard() -> Iterator[None]:
    """Undisturbed, and with the settings that torch and numpy begin with: what a method's file has set decides how the
    method trains, and neither its data nor its scores."""
    with undisturbed():
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
        yield
