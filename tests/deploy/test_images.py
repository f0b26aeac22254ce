"""The images as far as they can be checked without building them: pins, user, and what they copy and install."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGES = ("cuda12", "cuda13")


def instructions(image: str) -> list[tuple[str, str]]:
    """The Dockerfile as pairs of instruction and argument, continued lines joined, comments left out."""
    text = (DEPLOY / f"Dockerfile.{image}").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


def arguments(image: str, name: str) -> list[str]:
    return [argument for instruction, argument in instructions(image) if instruction == name]


def locked(image: str) -> dict[str, Version]:
    found = {}
    for line in (DEPLOY / f"requirements-{image}.txt").read_text().splitlines():
        if not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
            assert match, line
            found[re.sub(r"[._-]+", "-", match[1])] = Version(match[2])
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_the_base_is_pinned_and_of_a_python_that_the_project_takes(image: str) -> None:
    [base] = [argument.split("=", 1)[1] for argument in arguments(image, "ARG")]
    match = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", base)
    assert match, base
    assert all(stage.split()[0] == "${PYTHON_IMAGE}" for stage in arguments(image, "FROM"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Version(match[1]) in Requirement(f"python{project['requires-python']}").specifier
    written = (DEPLOY / f"requirements-{image}.txt").read_text().splitlines()[0]
    assert f"with Python {match[1].rpartition('.')[0]} on linux" in written


@pytest.mark.parametrize("image", IMAGES)
def test_everything_that_pip_installs_is_pinned(image: str) -> None:
    commands = [part.strip() for run in arguments(image, "RUN") for part in run.split("&&")]
    installs = [shlex.split(command) for command in commands if command.startswith("pip install")]
    assert len(installs) == 3
    for words in installs:
        assert "--no-cache-dir" in words
        named = [word for word in words[2:] if not word.startswith("-") and word != "/tmp/requirements.txt"]
        own = all(word.startswith("/tmp/wheels/") for word in named)
        assert "--require-hashes" in words or ("--no-index" in words and own) or all("==" in word for word in named)


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_runs_as_root(image: str) -> None:
    steps = instructions(image)
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    [user] = [(index, argument) for index, (name, argument) in enumerate(steps) if name == "USER"]
    assert user[0] > last
    assert int(user[1]) > 0
    assert any(f"useradd --create-home --uid {user[1]} " in argument for argument in arguments(image, "RUN"))
    assert {name for name, _ in steps[user[0] + 1 :]} <= {"WORKDIR", "CMD"}


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_there_and_sent_to_the_builder(image: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    for argument in arguments(image, "COPY"):
        if not argument.startswith("--from="):
            for name in argument.split()[:-1]:
                assert (ROOT / name).exists(), name
                assert any(fnmatch(name, kept[1:]) for kept in ignored if kept.startswith("!")), name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = " ".join(arguments(image, "COPY")).split()
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= set(copied)
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(copied)


@pytest.mark.parametrize("image", IMAGES)
def test_what_links_lead_to_is_copied_as_well(image: str) -> None:
    copied = [ROOT / name for name in " ".join(arguments(image, "COPY")).split()]
    links = [path for name in ("pilc_stream", "workers") for path in (ROOT / name).rglob("*") if path.is_symlink()]
    assert links, "the demo pictures are no link any more, so they need no copy of their own"
    assert all(any(link.resolve().is_relative_to(folder) for folder in copied) for link in links)


def test_the_build_tool_is_one_that_the_project_takes() -> None:
    [wanted] = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    for image in IMAGES:
        [pinned] = re.findall(r"setuptools==(\S+)", " ".join(arguments(image, "RUN")))
        assert wanted.name == "setuptools"
        assert pinned in wanted.specifier


def test_the_two_images_differ_in_cuda_alone() -> None:
    texts = [str(instructions(image)).replace(image, "cuda") for image in IMAGES]
    assert texts[0] == texts[1]
    locks = [locked(image) for image in IMAGES]
    shared = locks[0].keys() & locks[1].keys()
    different = {name for name in shared if locks[0][name] != locks[1][name]}
    assert different == {"cuda-bindings", "cuda-toolkit"}
    assert all(name.startswith("nvidia-") for name in locks[0].keys() ^ locks[1].keys())


@pytest.mark.parametrize("image", IMAGES)
def test_the_lock_satisfies_the_project(image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = locked(image)
    for line in [
        *project["dependencies"],
        *(x for extra in ("ray", "s3", "gcs", "azure", image) for x in extras[extra]),
    ]:
        wanted = Requirement(line)
        assert pins[wanted.name] in wanted.specifier, line
    assert pins["cuda-bindings"].major == int(image.removeprefix("cuda"))
    # V100 is compute capability 7.0: the compilers of CUDA 12 make code for it, those of CUDA 13 do not.
    compiler = {"cuda12": "nvidia-cuda-nvcc-cu12", "cuda13": "nvidia-nvvm"}[image]
    assert pins[compiler].major == pins["cuda-bindings"].major


@pytest.mark.slow
@pytest.mark.parametrize("image", IMAGES)
def test_the_lock_can_be_installed(image: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    strict = ["--require-hashes", "--only-binary=:all:", "-r", str(DEPLOY / f"requirements-{image}.txt")]
    done = subprocess.run([*command, *strict], capture_output=True, text=True, check=False)
    if "NewConnectionError" in done.stderr or "Temporary failure in name resolution" in done.stderr:
        pytest.skip("needs the package index")
    assert done.returncode == 0, done.stderr
