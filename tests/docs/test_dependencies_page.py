"""Every dependency is on the page that says what it is for, and so is nothing else."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution

import pytest

from tests.support.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGE = (ROOT / "docs" / "explanation" / "dependencies.md").read_text("utf-8")
LICENCE_TEXTS = {
    "Apache": "Apache License",
    "BSD": "Redistribution and use in source and binary forms",
    "MIT": "Permission is hereby granted, free of charge",
}
NOT_INSTALLED_BY_USERS = {"all", "dev", "release", "bench"}


def rows(title: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip("`") for cell in cells] for cells in found]


def names(requirements: list[str]) -> set[str]:
    return {match[0] for one in requirements if (match := re.match(r"[\w-]+", one))}


def test_the_page_names_each_dependency_of_the_middleware_and_no_other() -> None:
    assert {row[0] for row in rows("The middleware")} == names(PROJECT["dependencies"])


def test_the_page_names_each_dependency_of_each_extra_and_no_other() -> None:
    extras = PROJECT["optional-dependencies"]
    expected = {(name, extra) for extra in extras.keys() - NOT_INSTALLED_BY_USERS for name in names(extras[extra])}
    assert {(row[0], row[1]) for row in rows("Extras")} == expected


@pytest.mark.parametrize("title", ["The middleware", "Extras"])
def test_every_row_says_what_happens_without_it(title: str) -> None:
    assert all(len(row) == (5 if title == "Extras" else 4) and all(row) for row in rows(title))


@pytest.mark.parametrize("title", ["The middleware", "Extras"])
def test_every_row_has_the_licence_that_the_package_itself_names(title: str) -> None:
    for name, *_, licence in rows(title):
        installed = distribution(name)
        texts = [file.read_text() for file in installed.files or () if "LICENSE" in file.name.upper()]
        fields = ("License", "License-Expression", "Classifier")
        named = "\n".join([*texts, *(text for field in fields for text in installed.metadata.get_all(field) or ())])
        families = {word for word in re.split(r"\W+", licence) if word in {"Apache", "BSD", "MIT"}}
        assert families, name
        missing = {one for one in families if one not in named and LICENCE_TEXTS[one] not in named}
        assert not missing, (name, missing)
