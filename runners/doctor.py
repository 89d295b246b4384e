"""The doctor: a check of this installation and of what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gapbench.methods.engine.requirements import requirements


@dataclass(frozen=True)
class Finding:
    """A finding: a name, what was found, and advice on what to do (empty: nothing to do)."""

    name: str
    found: str
    advice: str = ""


def examine(folder: Path) -> list[Finding]:
    """All findings on this installation. folder: the folder for results; no new file is left there."""
    return [
        Finding("python", platform.python_version()),
        *_packages(),
        *_methods(),
        _torch(),
        Finding("cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"),
        _folder(folder),
    ]


def _packages() -> list[Finding]:
    """A finding for each package that gapbench needs, and one for what is missing of each extra."""
    found: list[Finding] = []
    absent: dict[str, list[str]] = {}
    for one in requirements():
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            version = ""
        if not one.extra:
            advice = f"gapbench does not work without it: pip install '{one.specification}'"
            found.append(Finding(one.name, version or "missing", "" if version else advice))
        elif not version:
            absent.setdefault(one.extra, []).append(one.name)
    for extra, names in absent.items():
        advice = "needed to change gapbench, not to use it: " if extra == "test" else ""
        advice += f"pip install 'gapbench[{extra}]'"
        found.append(Finding(f"extra {extra}", f"{', '.join(names)}: missing", advice))
    return found


def _methods() -> list[Finding]:
    """A finding for every file of methods/ and every plugin that gives no method."""
    try:
        from gapbench.runners.suites import discovered
    except ImportError:  # a package is missing, as reported above
        return []
    return [Finding(f"method {name}", "not available", why) for name, why in discovered().unavailable.items()]


def _torch() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("device", f"torch does not load: {error}", "install torch again; see pytorch.org")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("device", f"CUDA {torch.version.cuda}: {names}")
    if torch.backends.mps.is_available():
        return Finding("device", "MPS: Apple's GPU")
    if torch.version.cuda:
        return Finding("device", "CPU only", f"this torch is built for CUDA {torch.version.cuda}, but sees no driver")
    return Finding("device", f"CPU ({torch.backends.cpu.get_cpu_capability()}); this torch is built without CUDA")


def _folder(folder: Path) -> Finding:
    there = folder.exists()
    nearest = folder if there else next(parent for parent in folder.resolve().parents if parent.exists())
    free = f"{shutil.disk_usage(nearest).free / 2**30:.1f} GiB free"
    if not there:
        writable = os.access(nearest, os.W_OK | os.X_OK) and nearest.is_dir()
        return Finding(f"folder {folder}", f"not there yet; {free}", "" if writable else f"{nearest} is not writable")
    try:
        from gapbench.runners.store import Store, StoreError, has_links
    except ImportError:  # a package is missing, as reported above
        return Finding(f"folder {folder}", free)
    try:
        Store(folder).prepare()
    except StoreError as error:
        return Finding(f"folder {folder}", free, str(error))
    advice = "" if has_links(folder) else "no hard links there: a kill in the midst of a write leaves half a file"
    return Finding(f"folder {folder}", f"writable; {free}", advice)
