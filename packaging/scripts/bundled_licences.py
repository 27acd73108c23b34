"""Add to a copyright file the libraries that a virtual environment holds, by what each says of itself.

Usage: bundled_licences.py SITE-PACKAGES PLACE COPYRIGHT, the folder as built, the environment's place once installed,
and the file that has our own part. The texts of the licences stay beside the libraries; a library without one is an
error, since then nobody could know.
"""

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

OWN = "tfwatch"


def licence_of(library: Distribution) -> str:
    """The licence's name: SPDX if the library says so, else its classifiers, else the first line of its own words."""
    metadata = library.metadata
    said = metadata.get("License-Expression")
    classified = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    return said or ", ".join(classified) or (metadata.get("License") or "").partition("\n")[0] or "see the texts"


def texts_of(site: Path, library: Distribution) -> list[str]:
    """The files with the licence's text, relative to `site`."""
    folder = Path(str(library._path))  # type: ignore[attr-defined]
    found = [p for p in folder.rglob("*") if p.is_file() and p.name.upper().startswith(("LICEN", "COPYING", "NOTICE"))]
    return sorted(str(p.relative_to(site)) for p in found)


def paragraph(site: Path, place: Path, library: Distribution) -> str:
    name, version = library.metadata["Name"], library.version
    lines = [f" {name} {version}: {licence_of(library)}"]
    lines += [f"  {place / 'lib' / site.parent.name / 'site-packages' / text}" for text in texts_of(site, library)]
    return "\n".join(lines)


def main(site: Path, place: Path, own: Path) -> None:
    """Print the whole file."""
    libraries = sorted(distributions(path=[str(site)]), key=lambda d: d.metadata["Name"].lower())
    print(own.read_text(encoding="utf-8").rstrip())
    for l in libraries:
        if l.metadata["Name"] != OWN:
            print(paragraph(site, place, l))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
