import fnmatch
import re
from pathlib import Path

import pytest

from tests.deploy.command_line import ROOT, assert_is_command

INSTRUCTIONS = {
    "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "USER", "WORKDIR",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line]


def values(name: str) -> list[str]:
    return [value for instruction, value in instructions() if instruction == name]


def copied() -> list[str]:
    """What is copied from the repository, not from another stage of the build."""
    return [source for value in values("COPY") if "--from" not in value for source in value.split()[:-1]]


def test_instructions_are_known_and_begin_with_an_image():
    names = [name for name, _ in instructions()]
    assert set(names) <= INSTRUCTIONS
    assert names[0] == "FROM"


@pytest.mark.parametrize("source", copied())
def test_copied_files_exist_and_are_sent_to_the_builder(source):
    assert (ROOT / source).exists()
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    assert patterns[0] == "*"
    assert f"!{source}" in patterns


def test_copies_from_stages_name_one_that_exists():
    stages = [value.split(" AS ")[1] for value in values("FROM") if " AS " in value]
    assert re.findall(r"--from=(\S+)", " ".join(values("COPY"))) == stages


def test_every_package_of_ours_is_copied():
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert ours <= set(copied())


def test_python_is_one_that_the_project_supports():
    for image in values("FROM"):
        version = re.match(r"python:3\.(\d+)-slim", image)
        assert version is not None
        assert int(version[1]) >= 11


def test_dependencies_are_pinned_by_hash_and_nothing_else_is_fetched():
    installs = [value for value in values("RUN") if "pip install" in value]
    assert all(("--require-hashes" in each) or ("--no-deps --no-build-isolation" in each) for each in installs)
    assert len(installs) == 2


def test_the_image_does_not_run_as_root():
    assert values("USER")[-1].isdigit()
    assert values("USER")[-1] != "0"


def test_the_entry_point_is_our_command():
    assert values("ENTRYPOINT") == ['["spanmill"]']
    assert 'spanmill = "spanmill:main"' in (ROOT / "pyproject.toml").read_text()
    assert_is_command(["config", "check"])


def test_what_is_ignored_does_not_include_sources():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines()[1:] if not line.startswith("!")]
    sources = [str(Path(name)) for name in copied()]
    assert not [s for s in sources for pattern in ignored if fnmatch.fnmatch(s, pattern)]
