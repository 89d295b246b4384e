"""Files that are downloaded once: into the user's cache, and opened only if their sha256 is the known one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

SHARED = 0o644  # the mode of a file that others of the machine may read
TIMEOUT = 30.0  # seconds without a byte after which a server counts as gone


class DownloadError(OSError):
    """A file that is not here, or is not what it should be; the message says what to do."""


@dataclass(frozen=True)
class Download:
    """A file. name: in the cache. url: its public source. sha256: of its bytes."""

    name: str
    url: str
    sha256: str

    @property
    def path(self) -> Path:
        return folder() / self.name

    @property
    def here(self) -> bool:
        return self.path.is_file()

    def read(self) -> bytes:
        """The bytes. Raises DownloadError if they are not here, or have changed."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise DownloadError(f"{self.path}: {error.strerror}") from error
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise DownloadError(
                f"{self.path}: its sha256 is {found}, expected {self.sha256}; delete it and get it again"
            )
        return data

    def get(self) -> None:
        """Download the file, unless it is here and right. Raises DownloadError; then nothing is left behind."""
        import pooch  # here, because it takes a tenth of a second, and most commands need none

        try:
            folder().mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DownloadError(f"{folder()}: {error.strerror}; name another folder by GAPBENCH_DATA") from error
        try:
            # It is written beside its place, checked there, and moved.
            pooch.retrieve(
                self.url,
                f"sha256:{self.sha256}",
                self.name,
                folder(),
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=False),
            )
            self.path.chmod(SHARED)
        except (OSError, ValueError) as error:  # requests' errors are OSError; another hash is ValueError
            why = " ".join(str(error).split())
            raise DownloadError(f"{self.url}: {why}; try again later, or give the file by --from FOLDER") from error

    def take(self, source: Path) -> None:
        """Copy the file from elsewhere on this machine. Raises DownloadError if it is not the right one."""
        try:
            data = source.read_bytes()
            if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
                raise DownloadError(f"{source}: its sha256 is {found}, expected {self.sha256}: it is another file")
            folder().mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder(), prefix=f"{self.name}.", delete=False) as part:
                try:
                    part.write(data)
                    part.close()
                    os.replace(part.name, self.path)
                finally:
                    Path(part.name).unlink(missing_ok=True)
            self.path.chmod(SHARED)
        except DownloadError:
            raise
        except OSError as error:
            raise DownloadError(str(error)) from error


def folder() -> Path:
    """The folder of all downloads: GAPBENCH_DATA if it is set, else the user's cache."""
    from pooch import os_cache

    return Path(os.environ.get("GAPBENCH_DATA") or os_cache("gapbench")).expanduser().absolute()
