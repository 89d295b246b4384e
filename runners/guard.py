"""Guards around code of ours and of users: settings of the whole process do not leak out of them."""

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
    """Restore global settings and random streams of torch, numpy and the process at the end."""
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
        # A default device is a mode on a stack, so it is set only if it was changed.
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
    """Use the initial settings of torch and numpy inside; restore the present ones at the end.

    A method's file may change global settings. These affect the method's training, but not its data or its scores.
    """
    with undisturbed():
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
        yield
