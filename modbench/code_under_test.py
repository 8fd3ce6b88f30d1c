"""Which repository holds the code that a scenario measures: modbench's own, or the user's behind `entry:` or `command:`.

In: loaded scenarios. Out: a `Repository`. Nothing is imported to find out.
"""

import importlib.util
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from modbench.errors import OptionError
from modbench.provenance import PROJECT, git
from modbench.scenario import LoadedScenario

OWN_PACKAGES = ("modbench", "reference_impl")


@dataclass(frozen=True)
class Repository:
    """A git repository with code under test.

    Attributes:
        root: its top folder, resolved.
        import_roots: the folders in it, relative to `root`, that modules are imported from.
        packages: top-level modules that must come from it, whichever revision is measured.
    """

    root: Path
    import_roots: tuple[Path, ...]
    packages: tuple[str, ...] = ()

    @property
    def is_modbench(self) -> bool:
        """True if the code under test is this package itself."""
        return self.root == PROJECT


def repository_under_test(scenarios: Sequence[LoadedScenario]) -> Repository:
    """The repository of the scenarios' own methods, or modbench's where they have none.

    Raises:
        OptionError: the code is in no git repository, is not tracked by it, or is in several.
    """
    own = {package: PROJECT / package for package in OWN_PACKAGES}
    modules = {package: place for loaded in scenarios for package, place in _entry_places(loaded)}
    programs = {name: place for loaded in scenarios for name, place in _command_places(loaded)}
    if not modules and not programs:
        modules = own
    roots = {_repository_of(name, place) for name, place in (*modules.items(), *programs.items())}
    if len(roots) > 1:
        raise OptionError(
            f"--against: the code under test is in {' and '.join(sorted(map(str, roots)))}; "
            "expected one repository; check the scenarios one by one"
        )
    (root,) = roots
    if root == PROJECT:
        modules = {**own, **modules}
    return Repository(root, tuple(_import_roots(root, modules.values())), tuple(modules))


def _repository_of(package: str, place: Path) -> Path:
    """The top folder of the checkout whose tracked files the module is made of.

    An installed copy may lie inside a repository too (a virtual environment in the project's folder); no revision changes it.
    """
    folder = place if place.is_dir() else place.parent
    top = git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        raise OptionError(
            f"--against: the code under test, {package}, is in {folder}, which git does not know as a repository; "
            f"expected a checkout with the other revision; clone it, and see that this works: git -C {folder} status"
        )
    root = Path(top).resolve()
    if not git(root, "ls-files", "--", str(place)):
        raise OptionError(
            f"--against: the code under test, {package}, is in {place}, which {root} does not track; "
            "expected its checkout: start from its folder, or install it with pip install --editable"
        )
    return root


def _import_roots(root: Path, places: Iterable[Path]) -> list[Path]:
    """Every folder of the repository that this process imports from, relative to it: helpers of the code lie there too."""
    entries = (Path(entry or ".").resolve() for entry in sys.path)  # among them archives, and marks of import hooks
    folders = [*(entry for entry in entries if entry.is_dir()), *(place.parent for place in places)]
    return list(dict.fromkeys(folder.relative_to(root) for folder in folders if folder.is_relative_to(root)))


def _command_places(loaded: LoadedScenario) -> Iterator[tuple[str, Path]]:
    """(program, the file that it is or runs, else the folder that it is started in) of a scenario's `command` methods."""
    for label, settings in loaded.scenario.methods.items():
        for word in getattr(settings, "command", ()):
            path = Path(word)
            if not path.is_file():
                continue
            if path.is_absolute() and git(path.parent, "ls-files", "--", word):
                raise OptionError(
                    f"{loaded.path}: methods.{label}: command: got {word}, which is the same file on both sides; "
                    "expected a path relative to the folder that modbench is started in"
                )
            if not path.is_absolute():
                yield word, path.resolve()
                break
        else:
            if hasattr(settings, "command"):
                yield settings.command[0], Path.cwd()


def _entry_places(loaded: LoadedScenario) -> Iterator[tuple[str, Path]]:
    """(top-level module, its folder or file) of a scenario's `entry` methods."""
    for label, settings in loaded.scenario.methods.items():
        name = getattr(settings, "entry", None)
        if isinstance(name, str):
            package = name.partition(":")[0].partition(".")[0]
            yield package, _place(package, f"{loaded.path}: methods.{label}")


def _place(package: str, where: str) -> Path:
    """Where a top-level module is found; workers look where they are started first."""
    spec = PathFinder.find_spec(package, [str(Path.cwd())]) or _importable(package)
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    if spec is not None and not places and spec.has_location and spec.origin is not None:
        places = [spec.origin]
    if not places:
        raise OptionError(
            f"{where}: entry: no module {package!r} here; start from its folder, or install it with pip install --editable"
        )
    return Path(places[0]).resolve()


def _importable(package: str) -> ModuleSpec | None:
    """What an import statement would find: editable installs have finders of their own."""
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # a module without a spec, such as __main__
        return None
