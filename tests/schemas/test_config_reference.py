"""docs/config.md: every key of the models, as the models have it."""

import runpy
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from schemas.config.durations import Milliseconds
from schemas.config.section import Count, Section, Texts

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "config_reference.py"))


class Part(Section):
    """A part."""

    wait_ms: Milliseconds = Field(default=90_000, alias="wait")
    """How long,
    in words."""
    names: Texts | None = None
    mode: Literal["", "a"] = ""
    size: Annotated[int, Field(ge=1, le=9)]
    count: Count = 0
    others: dict[str, Any] = Field(default_factory=dict)


class Whole(Part):
    """Keys of its own, and inherited ones."""

    parts: tuple[Part, ...] = ()
    """Several."""


def test_a_key_has_its_type_its_default_and_what_is_written_below_it() -> None:
    rows = [
        (key, TOOL["type_of"](field), TOOL["default_of"](field), text) for key, field, text in TOOL["rows"](Whole, "")
    ]
    assert rows == [
        ("wait", "duration", "`1m30s`", "How long, in words."),
        ("names", "list of texts", "*not set*", ""),
        ("mode", '`""`, `a`', '`""`', ""),
        ("size", "whole number from 1 to 9", "*required*", ""),
        ("count", "whole number", "`0`", ""),
        ("others", "mapping", "`{}`", ""),
        ("parts", "list of mappings", "`[]`", "Several."),
    ]
    assert list(TOOL["below"](Whole, "x")) == [("x.parts[]", Part)]


def test_every_key_says_what_it_is_for() -> None:
    assert list(TOOL["without_text"]()) == []


@pytest.mark.parametrize(
    "line",
    [
        "| `wait` | duration | `10s` | How long one half of an edge waits for the other, in the log's time. |",
        "| `url` | text | *required* | Where requests go. |",
        "## `spanmill.sink`",
        "| `metrics_generator_processors` | `metrics_generator.processors` |",
    ],
)
def test_the_page_has_them(line: str) -> None:
    assert line in TOOL["page"]().splitlines()
