"""The picture of a report: the top of the page of results/published/default, as Chromium shows it.

    python docs/screenshot.py

It writes docs/images/report.png. It needs chromium on the PATH.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from gapbench.runners.load import collect
from gapbench.runners.report import write

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "published" / "default"
PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1200, 1480  # down to the end of the first chart
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-quic", "hide-scrollbars"),
)


def main() -> None:
    chromium = shutil.which("chromium") or sys.exit("chromium is not on the PATH: install it")
    with TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "report.png")
        write(collect(FOLDER), FOLDER, page)
        # Of the window's height its frame takes a part.
        more = (f"user-data-dir={folder}/user", f"screenshot={shot}", f"window-size={WIDTH},{HEIGHT + 200}")
        flags = [f"--{flag}" for flag in (*FLAGS, *more)]
        subprocess.run([chromium, *flags, page.as_uri()], check=True, capture_output=True)
        PICTURE.parent.mkdir(exist_ok=True)
        picture = Image.open(shot).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        # 256 colours make a third of the bytes; the octree keeps those of small marks.
        picture.quantize(method=Image.Quantize.FASTOCTREE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
