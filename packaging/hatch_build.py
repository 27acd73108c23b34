"""Writes into the wheel and the sdist which commit they were made from: tfwatch/build.txt, read by `tfwatch --version`.

An sdist carries the file on, so the wheel built from it is the one built from the checkout. An editable install has
none: the checkout itself is asked.
"""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuildStamp(BuildHookInterface):  # type: ignore[type-arg]
    """Adds build.txt to what is built from a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        commit = runpy.run_path(str(root / "tfwatch" / "built.py"))["commit"](root)
        if version == "editable" or commit is None:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="tfwatch-build-")
        stamp = Path(self._folder.name, "build.txt")
        stamp.write_text(f"{commit}\n", encoding="utf-8")
        stamp.chmod(0o644)
        build_data["force_include"][str(stamp)] = "tfwatch/build.txt"
