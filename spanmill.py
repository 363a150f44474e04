"""The command's first step: make sure that our packages are ours, then run `agents.cli`.

`agents`, `streams` and `schemas` are installed as they stand, and others publish packages of such names. Whatever
replaces one of them would fail somewhere later, with an error about something else.
"""

import contextlib
import importlib.util
import sys
from pathlib import Path

PACKAGES = ("agents", "streams", "schemas")
"""The first line of each one's `__init__.py` begins with "Spanmill's" and the name."""


def foreign_packages(home: Path) -> dict[str, str]:
    """Those of our packages that would be imported from elsewhere than `home`, and from where; imports nothing."""
    return {name: found for name in PACKAGES if (found := _foreign(home, name)) is not None}


def _foreign(home: Path, name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    if spec is None:
        return "nowhere: it is not installed"
    origin = spec.origin or ", ".join(spec.submodule_search_locations or [])
    ours = home / name / "__init__.py"
    if not origin or Path(origin).resolve() != ours.resolve():
        return origin
    with ours.open(encoding="utf-8") as file:  # another distribution may have been unpacked over it
        return None if f"Spanmill's {name}" in file.readline() else origin


def drop_stale_kernels(home: Path) -> None:
    """Delete compiled kernels that are older than any source of kernels.

    numba compares a kernel with its own file only: after a change in a function that another file's kernel calls (a
    `git pull`, an edit), the old code would go on running, and its values would be wrong.
    """
    folders = [home / "schemas", home / "streams"]
    newest = max(path.stat().st_mtime for folder in folders for path in folder.rglob("*.py"))
    for compiled in (path for folder in folders for path in folder.rglob("*.nb[ic]")):
        with contextlib.suppress(OSError):  # another process was faster, or the folder is read-only, hence unchanged
            if compiled.stat().st_mtime < newest:
                compiled.unlink()


def main() -> None:
    """Entry point of the console script."""
    foreign = foreign_packages(Path(__file__).resolve().parent)
    for name, where in foreign.items():
        sys.stderr.write(
            f"spanmill: the package '{name}' is not Spanmill's, it comes from {where}: "
            "install Spanmill in a virtual environment of its own\n"
        )
    if foreign:
        sys.exit(1)
    drop_stale_kernels(Path(__file__).resolve().parent)
    from agents.cli import main as run  # noqa: PLC0415  not before the check

    run()


if __name__ == "__main__":
    main()
