"""The sources of settings, in order of precedence: arguments, the environment, ``.env`` and a TOML file."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from smarter_auth_mw.errors import Mistake

PREFIX = "SMARTER_AUTH_"
CONFIG_FILE = "config_file"
"""The setting that names the TOML file, in the environment or ``.env``; the file must exist."""
DOTENV = ".env"
TOML = "smarter_auth.toml"
"""The file in the working directory; like ``.env``, it is read from no other directory."""
ARGUMENTS, ENVIRONMENT, DEFAULT = "arguments", "environment", "default"

_KUBERNETES = re.compile(r"(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT(_\w+)?)$")
_MEANT_EMPTY = frozenset({"failed_attempts"})
_ENVIRONMENT_MARKERS = ("pyvenv.cfg", "conda-meta")


@dataclass(frozen=True, slots=True)
class Origin:
    """One place where settings are given; ``values`` are its values by setting name."""

    name: str
    values: Mapping[str, Any]
    is_toml: bool = False

    @property
    def is_file(self) -> bool:
        return self.name not in (ARGUMENTS, ENVIRONMENT)

    def located(self, mistake: Mistake) -> Mistake:
        """Return the mistake with the setting's name as spelled in this place, and with the file."""
        name = mistake.variable.removeprefix(PREFIX).lower()
        return replace(mistake, variable=self._spelled(name), file=self.name) if self.is_file else mistake

    def unknown(self, known: Iterable[str]) -> Iterator[Mistake]:
        """Yield a mistake for each name that is not a setting."""
        known = list(known)
        for name in sorted(self.values.keys() - known):
            nearest = difflib.get_close_matches(name.lower().removeprefix(PREFIX.lower()), known, n=1)
            suggestion = f"; the nearest is {self._spelled(nearest[0])}" if nearest else ""
            yield Mistake(
                self._spelled(name), "", f"there is no such setting{suggestion}", self.name if self.is_file else ""
            )

    def _spelled(self, setting: str) -> str:
        is_variable = not self.is_toml and self.name != ARGUMENTS and not setting.startswith(PREFIX)
        return PREFIX + setting.upper() if is_variable else setting


def read(arguments: Mapping[str, Any]) -> tuple[list[Origin], list[Mistake]]:
    """Return all origins, the one with precedence first, and the mistakes in the files.

    An empty value counts as not set, since Compose files write unset variables as empty. One setting gives the empty
    value a meaning.
    """
    mistakes: list[Mistake] = []
    origins = [Origin(ARGUMENTS, arguments), Origin(ENVIRONMENT, _settings(os.environ))]
    dotenv = Path.cwd() / DOTENV
    if _is_meant(dotenv):
        origins.append(Origin(str(dotenv), _read_dotenv(dotenv, mistakes)))
    named = next((path for origin in origins[1:] if (path := origin.values.get(CONFIG_FILE))), None)
    toml = Path.cwd() / (named or TOML)
    if named or _is_meant(toml):
        origins.append(Origin(str(toml), _read_toml(toml, mistakes), is_toml=True))
    return [Origin(origin.name, _set(origin), origin.is_toml) for origin in origins], mistakes


def _set(origin: Origin) -> dict[str, Any]:
    names_file = origin.name != ARGUMENTS and not origin.is_toml
    return {
        name: value
        for name, value in origin.values.items()
        if (value != "" or name in _MEANT_EMPTY) and not (names_file and name == CONFIG_FILE)
    }


def _settings(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables of settings by setting name, and others with the prefix under their own name."""
    return {
        name.removeprefix(PREFIX).lower() if name.isupper() else name: value
        for name, value in variables.items()
        if name.startswith(PREFIX) and value is not None and not _KUBERNETES.search(name)
    }


def _read_dotenv(path: Path, mistakes: list[Mistake]) -> dict[str, str]:
    """Read ``.env``, ignoring variables of other programs and mistakes in them."""
    text = _text(path, mistakes)
    wrong = [one.original for one in parse_stream(StringIO(text)) if one.error and PREFIX in one.original.string]
    mistakes += [Mistake(str(path), "", f"line {original.line} is not NAME=VALUE") for original in wrong]
    return _settings(dotenv_values(stream=StringIO(text)))


def _read_toml(path: Path, mistakes: list[Mistake]) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path, mistakes))
    except tomllib.TOMLDecodeError as error:
        mistakes.append(Mistake(str(path), "", f"this is not TOML: {error}"))
        return {}


def _is_meant(path: Path) -> bool:
    """Return whether the path exists and is not a virtual environment, which some people name ``.env``."""
    return path.exists() and not any((path / marker).exists() for marker in _ENVIRONMENT_MARKERS)


def _text(path: Path, mistakes: list[Mistake]) -> str:
    try:
        return path.read_text("utf-8-sig")  # Some editors write a byte order mark.
    except IsADirectoryError:
        rule = "it is a directory, not a file: Docker creates one if the file to be mounted does not exist"
        mistakes.append(Mistake(str(path), "", rule))
    except OSError as error:
        mistakes.append(Mistake(str(path), "", f"it cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        mistakes.append(Mistake(str(path), "", "it is not written in UTF-8"))
    return ""
