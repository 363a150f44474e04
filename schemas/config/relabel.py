"""Relabelling rules (`write_relabel_configs`), as Prometheus 3 reads and checks them (Tempo ST-3)."""

from typing import Annotated, Any, Literal, Self

import re2
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.config.section import Int, Section

Action = Literal[
    "replace",
    "keep",
    "drop",
    "keepequal",
    "dropequal",
    "hashmod",
    "labelmap",
    "labeldrop",
    "labelkeep",
    "lowercase",
    "uppercase",
]

NEEDS_TARGET = frozenset({"replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal"})
COMPARES = frozenset({"keepequal", "dropequal"})
CHOOSES_LABELS = frozenset({"labeldrop", "labelkeep"})
WITHOUT_REPLACEMENT = COMPARES | {"lowercase", "uppercase"}

EVERYTHING = "(.*)"
FIRST_GROUP = "$1"

QUIET = re2.Options()
QUIET.log_errors = False  # else the library writes them to standard error as well


def compile_anchored(regex: str) -> Any:
    """A compiled expression that must match a whole text, in which `.` is any character. ValueError says what's wrong.

    Go's syntax and RE2's are one language, of one author; Python's `re` is another.
    """
    try:
        re2.compile(regex, QUIET)  # alone too: `a)|(b` must not close the anchors' group
        return re2.compile(f"^(?s:{regex})$", QUIET)
    except re2.error as error:
        said = error.args[0].decode(errors="replace") if error.args else "no expression"
        raise ValueError(f"{regex!r} is not a regular expression ({said}); write it in RE2's syntax") from None


def check_regex(regex: str) -> str:
    """RE2 takes it."""
    compile_anchored(regex)
    return regex


def read_action(action: object) -> object:
    """Actions may be written in any case."""
    return action.lower() if isinstance(action, str) else action


def check_name(name: str) -> str:
    """Any text but the empty one is a label's name: Tempo reads them in Prometheus' UTF-8 mode."""
    if not name:
        raise ValueError("an empty label name; leave it out")
    return name


class RelabelConfig(Section):
    """One rule; rules apply in their order, each to what the one before left."""

    source_labels: tuple[Annotated[str, AfterValidator(check_name)], ...] = ()
    """The labels whose values the rule looks at, joined by the separator."""
    separator: str = ";"
    """What stands between them."""
    regex: Annotated[str, AfterValidator(check_regex)] = EVERYTHING
    """What their values, as a whole, have to match (RE2); for labelmap, labeldrop and labelkeep the names of labels."""
    modulus: Annotated[Int, Field(ge=0, le=(1 << 64) - 1)] = 0
    """Of hashmod."""
    target_label: str = ""
    """The label that is written."""
    replacement: str = FIRST_GROUP
    """Its value, or for labelmap its name; `$1` is what the first group matched."""
    action: Annotated[Action, BeforeValidator(read_action)] = "replace"
    """replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase or uppercase."""

    @model_validator(mode="after")
    def _fields_fit_the_action(self) -> Self:
        action = self.action
        if action == "hashmod" and not self.modulus:
            raise ValueError("relabel configuration for hashmod requires non-zero modulus; name one")
        if action in NEEDS_TARGET and not self.target_label:
            raise ValueError(f"relabel configuration for {action} action requires 'target_label' value; name one")
        if action == "labelmap" and not self.replacement:
            raise ValueError("'' is invalid 'replacement' for labelmap action; write one such as $1")
        if action in COMPARES and not self._is_default("separator", "regex", "modulus", "replacement"):
            raise ValueError(
                f"{action} action requires only 'source_labels' and 'target_label', and no other fields; leave them out"
            )
        if action in WITHOUT_REPLACEMENT and not self._is_default("replacement"):
            raise ValueError(f"'replacement' can not be set for {action} action; leave it out")
        if action in CHOOSES_LABELS and not self._is_default(
            "source_labels", "separator", "modulus", "target_label", "replacement"
        ):
            raise ValueError(f"{action} action requires only 'regex', and no other fields; leave them out")
        return self

    def _is_default(self, *fields: str) -> bool:
        return all(getattr(self, name) == type(self).model_fields[name].default for name in fields)
