"""Put into a copyright file, at @LIBRARIES@, the libraries of a virtual environment, by what each says of itself.

Usage: bundled_licences.py SITE-PACKAGES PLACE COPYRIGHT: that folder as built, the same once installed, and the file
that has our own part. The texts of the licences stay beside the libraries. One without a text is an error, for a
person to look at, unless it names the licence whose text our own part has.
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


def entry(site: Path, place: Path, library: Distribution) -> str:
    """One library's lines: what it is, and where the text of its licence lies."""
    name, licence, texts = library.metadata["Name"], licence_of(library), texts_of(site, library)
    if not texts and not licence.startswith("MIT"):
        raise SystemExit(f"{name} {library.version} ({licence}) has no text of its licence: look before it is packaged")
    lines = [f"{name} {library.version}: {licence}", *(f"  {place / text}" for text in texts)]
    return "\n".join(f" {line}" for line in (lines if texts else [*lines, "  the text is that of Expat, below"]))


def main(site: Path, place: Path, own: Path) -> None:
    """Print the whole file, in Debian's machine-readable form."""
    libraries = sorted(distributions(path=[str(site)]), key=lambda library: library.metadata["Name"].lower())
    entries = [entry(site, place, library) for library in libraries if library.metadata["Name"] != OWN]
    files = str(place).lstrip("/")
    head = f"Files: {files}/*\nCopyright: their authors, named in the texts below\nLicense: each-its-own\n"
    print(own.read_text(encoding="utf-8").replace("@LIBRARIES@", head + "\n".join(entries)), end="")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
