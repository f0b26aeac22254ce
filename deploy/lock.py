"""Writes the requirements of the images, every package with its version and digest, as pip resolves them today.

    python deploy/lock.py

Run it on Linux with the Python of the images, in a clean checkout; it downloads metadata only. The images install
exactly these files, so an image that is built again is the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EXTRAS = ("ray", "s3", "gcs", "azure", "http")
IMAGES = ("cuda12", "cuda13")


def wanted(image: str) -> list[str]:
    """What the project asks for in this image, loosely."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return sorted({*project["dependencies"], *(line for extra in (*EXTRAS, image) for line in extras[extra])})


def resolve(requirements: list[str]) -> list[dict[str, Any]]:
    """What pip would install, wheels only."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--only-binary=:all:", "--report", str(report), *requirements], check=True)
        installed: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return installed


def line(package: dict[str, Any]) -> str:
    """One package as pip wants it where digests are required."""
    metadata, digests = package["metadata"], package["download_info"]["archive_info"]["hashes"]
    return f"{metadata['name'].lower()}=={metadata['version']} --hash=sha256:{digests['sha256']}"


def main() -> None:
    """Write one file for each image."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for image in IMAGES:
        head = f"# Written by deploy/lock.py with Python {version} on {sys.platform}. Do not edit: run it again.\n"
        lines = sorted(map(line, resolve(wanted(image))))
        (HERE / f"requirements-{image}.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
