"""Requirements: the packages that gapbench needs, always or for an extra, by the metadata of its installation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Requirement:
    """A package. specification: as pip takes it. extra: the extra of gapbench that installs the package, or empty."""

    name: str
    specification: str
    extra: str


def requirements() -> list[Requirement]:
    """All requirements; none where gapbench runs without being installed."""
    try:
        lines = metadata.requires("gapbench") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        specification, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        name = re.split(r"[ <>=!~\[]", specification.strip())[0]
        found.append(Requirement(name, specification.strip(), extra[1] if extra else ""))
    return found
