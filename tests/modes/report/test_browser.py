"""Page in a headless Chromium: tables sort, figures show, and nothing is loaded."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")

LISTENING = """
<script>
const seen = { refused: [], errors: [] };
addEventListener("securitypolicyviolation", (event) => seen.refused.push(event.blockedURI));
addEventListener("error", (event) => seen.errors.push(event.message));
</script>
"""
USING = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("table");
  const headings = [...table.tHead.rows[0].cells];
  const column = (name) => headings.findIndex((cell) => cell.textContent === name);
  const cells = (name) => [...table.tBodies[0].rows].map((row) => row.cells[column(name)].textContent);
  const click = (name) => {
    headings[column(name)].querySelector("button").click();
    return { order: cells(name), models: cells("model"), said: headings.map((cell) => cell.getAttribute("aria-sort")) };
  };
  seen.before = cells("model");
  seen.seeds = click("seeds");
  seen.names = click("model");
  seen.cost = click("GMACs");
  seen.score = click("validation, %");
  seen.reversed = click("validation, %");
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  seen.widths = [...document.images].map((image) => image.naturalWidth);
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  seen.keyboard = headings.every((cell) => cell.querySelector("button").tabIndex === 0);
  document.documentElement.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(seen);
});
</script>
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Open a copy of a page with scripts that observe it, and return their observations."""

    def look(page: Path) -> dict:
        folder = tmp_path_factory.mktemp("browser")
        text = page.read_text().replace("<head>", f"<head>{LISTENING}").replace("</body>", f"{USING}</body>")
        (folder / "page.html").write_text(text)
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000"]
        ended = subprocess.run(
            [*command, "--dump-dom", (folder / "page.html").as_uri()],
            capture_output=True, text=True, timeout=120, env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        return json.loads(html.unescape(re.search(r"<pre>(.*)</pre>", ended.stdout, re.S)[1]))

    return look


def test_the_page_sorts_shows_its_pictures_and_loads_nothing(leave, report_of, opened):
    rows = {"resnet18": (0.095, 2, 1.6e9), "vt_resnet18": (0.72, 11, 1.12e9), "<vt>": (0.71, 1, 10.3e9)}
    for model, (best, seeds, macs) in rows.items():
        for seed in range(seeds):
            recall = {"ant": {"recall": best, "precision": 1.0}}
            facts = {"seed": seed, "settings": model, "model": model, "macs": macs, "class_scores": recall}
            leave(f"runs/{model}-{seed}", 0.05, best, **facts)
    leave("runs/stopped", 0.9, state="stopped", settings="s", model="resnet50", macs=None)
    seen = opened(report_of() / "report.html")
    assert seen["before"] == ["resnet50", "vt_resnet18", "<vt>", "resnet18"]
    assert seen["seeds"]["order"] == ["11", "2", "1", "0"]  # as numbers
    assert seen["cost"]["order"] == ["10.3", "1.6", "1.12", ""]  # with decimals
    assert seen["score"]["order"] == ["72.00 ± 0.00", "71.00", "9.50 ± 0.00", ""]  # what says nothing is last
    assert seen["reversed"]["order"] == ["9.50 ± 0.00", "71.00", "72.00 ± 0.00", ""]
    assert seen["names"]["models"] == ["<vt>", "resnet18", "resnet50", "vt_resnet18"]
    marked = {name: [order for order in seen[name]["said"] if order] for name in ("score", "reversed", "names")}
    assert marked == {"score": ["descending"], "reversed": ["ascending"], "names": ["ascending"]}
    assert seen["keyboard"]
    assert len(seen["widths"]) == 3
    assert min(seen["widths"]) > 300
    assert (seen["loaded"], seen["refused"], seen["errors"]) == ([], [], [])
