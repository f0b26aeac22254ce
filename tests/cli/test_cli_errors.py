from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import workers.job
from pilc_stream import __version__
from pilc_stream.errors import DeviceError, JobError, StorageError, UsageError

Pilc = Callable[..., Result]


@pytest.fixture
def failing(pilc: Pilc, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`pilc compress` whose job raises an exception."""

    def run(error: BaseException, *flags: str, before: tuple[str, ...] = ()) -> Result:
        def job(*_: object) -> None:
            raise error

        monkeypatch.setattr(workers.job, "run_job", job)
        return pilc(*before, "compress", photos, tmp_path / "dataset", *flags)

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a: wrong."), 2),
        (JobError("b: failed."), 3),
        (StorageError("c: gone."), 3),
        (DeviceError("d: none."), 3),
    ],
)
def test_an_error_is_its_sentence_and_an_exit_code(error: Exception, code: int, failing: Callable[..., Result]) -> None:
    result = failing(error)

    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"pilc: {error}\n")


def test_a_crash_is_one_line_that_says_where(failing: Callable[..., Result]) -> None:
    result = failing(ZeroDivisionError("by zero"))

    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert "ZeroDivisionError: by zero (test_cli_errors.py:" in result.stderr
    assert "--debug" in result.stderr


@pytest.mark.parametrize("way", ["flag", "flag of the group", "environment"])
def test_debug_shows_the_traceback(way: str, failing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("PILC_DEBUG", "1")
    flags = ("--debug",) if way == "flag" else ()
    before = ("--debug",) if way == "flag of the group" else ()

    result = failing(JobError("b: failed."), *flags, before=before)

    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("pilc: b: failed.\n")


def test_debug_can_be_switched_off_in_the_environment(
    failing: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILC_DEBUG", "0")

    assert "Traceback" not in failing(JobError("b: failed.")).stderr


def test_json_holds_the_error(failing: Callable[..., Result]) -> None:
    result = failing(JobError("b: failed."), "--json")

    assert json.loads(result.stdout) == {"error": "b: failed.", "exit_code": 3}


def test_an_interrupt_says_how_to_go_on(failing: Callable[..., Result]) -> None:
    result = failing(KeyboardInterrupt())

    assert result.exit_code == 130
    assert result.stderr == "pilc: Stopped. Run the same command again to go on.\n"


def test_version(pilc: Pilc) -> None:
    assert pilc("--version").stdout == f"pilc, version {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["compress"], ["compress", "only-one"], ["compres"], ["verify", "--what"]])
def test_wrong_use_is_2(arguments: list[str], pilc: Pilc) -> None:
    assert pilc(*arguments).exit_code == 2


def test_a_reader_that_stops_reading_is_no_crash() -> None:
    command = [sys.executable, "-c", "from pilc_stream.cli import main; main()", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_help_needs_none_of_the_heavy_packages() -> None:
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from pilc_stream.cli import cli\n"
        "assert CliRunner().invoke(cli, ['compress', '--help']).exit_code == 0\n"
        "print(sorted({'ray', 'torch', 'numba', 'numpy', 'pyarrow', 'PIL', 'fsspec', 'rich'} & sys.modules.keys()))\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert output == "[]\n"


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_what_libraries_print_about_odd_files_is_heard_under_debug_only(
    flags: list[str], tmp_path: Path, photo_like: Callable[..., Any], file_of: Callable[..., bytes]
) -> None:
    (tmp_path / "odd").mkdir()
    whole = file_of(photo_like(64, 64), "TIFF", compression="tiff_lzw")
    # The pixels come first in Pillow's TIFF: libtiff finds no end of them and says so, in C.
    (tmp_path / "odd" / "torn.tif").write_bytes(whole[:200] + b"\xff" * 400 + whole[600:])
    script = "from pilc_stream.cli import main; main()"
    command = ["compress", str(tmp_path / "odd"), str(tmp_path / "out"), "--profile", "raw", "--workers", "0", *flags]

    result = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True)

    assert result.returncode == 1
    foreign = [line for line in result.stderr.splitlines() if not line.startswith("pilc: ")]
    assert bool(foreign) is bool(flags)
