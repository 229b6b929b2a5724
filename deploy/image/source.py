"""What the image says about where it comes from: version, revision, time.

In: Cargo.toml, and git where the tree is a checkout. Out: a Source. The time is the last commit's, or
SOURCE_DATE_EPOCH, never the clock: two builds of one tree are bit-equal.
"""

import datetime
import os
import subprocess
import tomllib
from dataclasses import dataclass

from binary import ROOT


@dataclass(frozen=True)
class Source:
    version: str
    description: str
    licence: str
    revision: str
    epoch: int

    @staticmethod
    def read() -> "Source":
        package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
        changed = git("status", "--porcelain", "--untracked-files=no")
        revision = (git("rev-parse", "HEAD") or "unknown") + ("-changed" if changed else "")
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct") or "0"
        return Source(package["version"], package["description"], package["license"], revision, int(epoch))

    @property
    def created(self) -> str:
        """RFC 3339."""
        return datetime.datetime.fromtimestamp(self.epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
