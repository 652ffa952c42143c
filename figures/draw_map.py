#!/usr/bin/env python3
"""Save a screenshot of a page of ``hear-tune map``, taken by an installed Chromium."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 720  # CSS pixels
SETTLING_MS = 1000


def main() -> None:
    """Save the screenshot of the page in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, metavar="MAP.html")
    parser.add_argument("picture", type=Path, metavar="OUT.png")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme="dark" if options.dark else "light",
        )
        page.goto(options.page.resolve().as_uri())
        page.wait_for_timeout(SETTLING_MS)
        page.screenshot(path=options.picture)
        browser.close()


if __name__ == "__main__":
    main()
