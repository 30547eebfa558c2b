"""A run folder: config.toml, manifest.json, metrics.jsonl, checkpoints/."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivesim.config import save_toml


def write_json(path: Path, value: Any) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    partial.replace(path)


def code_version() -> str:
    """The commit of the checkout, with a plus where it is modified; "unknown" outside one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip()


@dataclass(frozen=True)
class Run:
    """One run's folder on disk."""

    path: Path

    @staticmethod
    def create(path: Path, config: Any, **provenance: Any) -> Run:
        """Make the folder (or reopen it) and write its config and manifest."""
        path.mkdir(parents=True, exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        save_toml(config, path / "config.toml")
        manifest = {
            "commit": code_version(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cpus",
            **provenance,
        }
        write_json(path / "manifest.json", manifest)
        return Run(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of numbered checkpoints; `last` links to the newest."""
        return self.path / "checkpoints"

    def log(self, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Read metrics.jsonl back; a half-written last line is skipped."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue
