"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

DEBUG = "pilc.debug"
JSON = "pilc.json"
"""Keys of click's `meta`, which the commands of one call share: what was asked for."""

_Command = TypeVar("_Command", bound=Callable[..., Any])

if TYPE_CHECKING:
    _IntType = click.ParamType[int]
    _PairType = click.ParamType[tuple[str, Any]]
else:
    # Generic only in newer releases of click.
    _IntType = _PairType = click.ParamType

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Size(_IntType):
    """A number of bytes: 1000000, 128MiB, 0.5GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes that `value` means."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]I?)?B?", str(value).strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is no size. Give bytes, or a number with a unit: 1000000, 128MiB, 0.5GB.", param, ctx)
        return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


class KeyValue(_PairType):
    """KEY=VALUE for an fsspec file system. A value that is JSON is taken as JSON, anything else as text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The key and its value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not KEY=VALUE.", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


def _note(key: str) -> Callable[[click.Context, click.Parameter, bool], bool]:
    def note(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        ctx.meta[key] = ctx.meta.get(key, False) or value
        return value

    return note


def _debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    asked = value or os.environ.get("PILC_DEBUG", "") not in ("", "0")
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or asked


def debug_option(command: _Command) -> _Command:
    """`--debug`, on the group and on every command; it is no argument of the function."""
    text = "Show the traceback of an error (as does PILC_DEBUG=1)."
    return click.option("--debug", is_flag=True, expose_value=False, callback=_debug, help=text)(command)


def json_option(command: _Command) -> _Command:
    """`--json`, as the argument `as_json`."""
    text = "Print one JSON object on standard output, and nothing else there."
    return click.option("--json", "as_json", is_flag=True, callback=_note(JSON), help=text)(command)


def storage_option(command: _Command) -> _Command:
    """`--storage-option KEY=VALUE`, repeated, as the argument `storage_options`, a dictionary."""
    return click.option(
        "--storage-option",
        "storage_options",
        type=KeyValue(),
        multiple=True,
        metavar="KEY=VALUE",
        callback=lambda ctx, param, value: dict(value),
        help="For the storage of a URL, such as endpoint_url=http://localhost:9000; repeat it for more.",
    )(command)


def settings_option(command: _Command) -> _Command:
    """`--settings FILE`: what the file says stands for flags and arguments that are not given."""
    return click.option(
        "--settings",
        type=click.Path(exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_read_settings,
        metavar="FILE",
        help="A TOML file that says what is not given here: sources, destination, and flags by their names.",
    )(command)


def _read_settings(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        said = tomllib.loads(Path(value).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{value}: it cannot be read as TOML: {error}.", ctx, param) from error
    known = {name.lstrip("-"): each for each in ctx.command.params if each.expose_value for name in each.opts}
    defaults: dict[str, Any] = {}
    for name, setting in said.items():
        if name not in known:
            raise click.BadParameter(f"{value}: {name!r} is no setting. Known are {', '.join(known)}.", ctx, param)
        target = known[name]
        if isinstance(setting, dict):
            setting = list(setting.items())
        elif target.nargs == -1 and not isinstance(setting, list):
            setting = [setting]
        defaults[str(target.name)] = setting
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def device_option(command: _Command) -> _Command:
    """`--device`."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "reference"]),
        default="auto",
        show_default=True,
        help="Where pixels are coded; the bytes are the same everywhere.",
    )(command)


def threads_option(text: str) -> Callable[[_Command], _Command]:
    """`--threads`, None unless given; `text` is its help."""
    return click.option("--threads", type=click.IntRange(min=1), help=text)
