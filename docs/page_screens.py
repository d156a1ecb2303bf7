"""Pictures of the web page for these pages: a good, a doubtful and an unusable clip, all of them simulated.

Needs the extra `app`, playwright and Chromium:

    python docs/page_screens.py --output docs/images
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from echomen_hf.simulation import ExportSettings, export_clip, simulate_echo, write_avi


PORT = 7877
FPS = 50.0
SCREEN = ExportSettings(width=800, height=600, fan_height=0.7, vendor="premium", ecg="scroll")
MILLISECONDS = 600_000


def main() -> None:
    """Simulate clips, show each to the page, and save what it looks like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    args = parser.parse_args()
    command = [sys.executable, "-m", "echomen_hf.cli", "app", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            clips = write_clips(Path(folder))
            _wait(server)
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for quality, path in clips.items():
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                _show(page, path, quality)
                if quality == "good":
                    page.screenshot(path=args.output / "app.jpg", type="jpeg", quality=55, full_page=True)
                else:
                    picture = args.output / f"page_{quality}.jpg"
                    page.locator("#summary").screenshot(path=picture, type="jpeg", quality=80)
                page.close()
    finally:
        server.terminate()
        server.wait(30)


def write_clips(folder: Path) -> dict[str, Path]:
    """Write a clip of each quality: some beats on a screen, the first second of them, and a frozen picture."""
    echo = simulate_echo(12, 58.0, num_frames=150)
    screen = export_clip(echo.frames, FPS, SCREEN).frames
    shown = {"good": screen, "doubtful": screen[:50], "unusable": np.repeat(screen[:1], 100, axis=0)}
    for quality, frames in shown.items():
        write_avi(folder / f"{quality}.avi", frames, FPS)
    return {quality: folder / f"{quality}.avi" for quality in shown}


def _wait(server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{PORT}", timeout=5).close()
        except OSError:
            time.sleep(1)
    raise RuntimeError("The page did not start; run `echomen app` to see why.")


def _show(page: Any, path: Path, quality: str) -> None:
    """Pass a clip to the page, and wait until the whole reading is there."""
    page.set_default_timeout(MILLISECONDS)
    page.goto(f"http://127.0.0.1:{PORT}")
    page.wait_for_selector("#sample")
    page.locator("#upload input[type=file]").set_input_files(path)
    page.wait_for_selector(".quality, .problem")
    if not page.locator(f".quality.{quality}").count():
        raise RuntimeError(f"The clip is not {quality}: {page.locator('#summary').inner_text()}")
    page.wait_for_selector("#clip video")
    if quality == "good":
        page.wait_for_selector("#looked video")
        page.wait_for_function("document.querySelector('#looked video').readyState >= 2")
    page.wait_for_timeout(2000)


if __name__ == "__main__":
    main()
