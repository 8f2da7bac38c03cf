"""Check what the quickstart promises: a finished campaign, a phase rediscovered, a report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path


def main(directory: Path) -> None:
    """Fail with a sentence if a promise is broken."""
    command = [sys.executable, "-m", "matloop", "status", "--dir", str(directory), "--json"]
    status = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert status["status"] == "finished", f"the campaign is {status['status']}"
    for iteration in status["iterations"]:
        for stage in iteration["stages"]:
            parts = ("passed", "rejected", "failed", "held")
            total = sum(stage[part] for part in parts)
            assert stage["entered"] == total, f"{stage} does not add up"
    found = status["rediscovered"]
    assert found, "no withheld phase was rediscovered"
    report = (directory / "report.html").read_text(encoding="utf-8")
    external = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?://[^\"']+", report)
    assert not external, f"the report needs a network: {external[:3]}"
    print(f"quickstart: rediscovered {found}; report of {len(report) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
