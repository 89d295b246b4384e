"""The report of results/published/default, and a picture of its top, as Chromium shows it.

    python docs/screenshot.py

It writes docs/report.html and docs/images/report.png. It needs chromium on the PATH.
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
PAGE = ROOT / "docs" / "report.html"
PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1200, 1600  # down to the end of the first table
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"),
    *("disable-component-update", "disable-sync", "disable-quic", "hide-scrollbars"),
)


def main() -> None:
    chromium = shutil.which("chromium") or sys.exit("chromium is not on the PATH: install it")
    write(collect(FOLDER), FOLDER, PAGE)
    with TemporaryDirectory() as folder:
        shot = Path(folder, "report.png")
        # Of the window's height its frame takes a part.
        more = (f"user-data-dir={folder}/user", f"screenshot={shot}", f"window-size={WIDTH},{HEIGHT + 200}")
        flags = [f"--{flag}" for flag in (*FLAGS, *more)]
        subprocess.run([chromium, *flags, PAGE.as_uri()], check=True, capture_output=True)
        PICTURE.parent.mkdir(exist_ok=True)
        picture = Image.open(shot).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        # 256 colours make a third of the bytes; the octree keeps those of small marks.
        picture.quantize(method=Image.Quantize.FASTOCTREE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
