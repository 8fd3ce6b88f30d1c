"""The files that name versions agree: pyproject.toml (ranges), constraints.txt (what is installed), constraints-oldest.txt."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def ranges() -> dict[str, str]:
    """Name -> what pyproject.toml demands, of the program and for development."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    demands = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return dict(re.fullmatch(r"([\w.-]+)(.*)", demand).groups() for demand in demands)


def pins(file: str) -> dict[str, str]:
    lines = [line for line in (PROJECT / file).read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def test_the_oldest_transformers_is_the_one_that_the_range_starts_with():
    assert f">={pins('constraints-oldest.txt')['transformers']}" == f"{ranges()['transformers']}.0"


def test_every_direct_dependency_is_pinned():
    assert {normal(name) for name in ranges()} <= {normal(name) for name in pins("constraints.txt")}


def test_what_is_installed_lies_in_the_range():
    pinned = {normal(name): version for name, version in pins("constraints.txt").items()}
    for name, demand in ranges().items():
        assert numbers(pinned[normal(name)]) >= numbers(demand.removeprefix(">=")), f"{name}{demand}"
