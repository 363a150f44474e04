"""YAML with line numbers: a file becomes plain values plus, for each key and item, the line where it stands.

Differences from PyYAML's safe loader: a repeated key is an error; `1e-06` is a number (Tempo CFG-2a); dates and base-60
numbers (`2026-01-01`, `10:30`) are texts, as in Go's YAML; sequences become tuples; only YAML's own plain types exist.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Keys and indices from the root of a document to a value."""

MAX_REPEATED = 100_000
"""An alias may stand for a large value, and aliases for aliases: more repeated values than this are no configuration.
What is written out has no bound: a file may have many tenants."""

MAX_DEPTH = 100

INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
BOOL = re.compile(r"true|True|TRUE|yes|Yes|YES|on|On|ON|false|False|FALSE|no|No|NO|off|Off|OFF")
NULL = re.compile(r"~|null|Null|NULL|")
NAMED = re.compile(r"""(?<=alias|nchor|andle) (?:'[^']*'|"[^"]*")""")
"""What PyYAML calls an alias, anchor or handle of tags: a secret that begins with *, & or ! would be shown as such."""
FOREIGN_TAG = "a tag that is not known here; remove it, or quote a text that begins with !"
TRUE = frozenset({"true", "yes", "on"})
TAG = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """A file that isn't a YAML mapping; `line` is 1-based."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class Document:
    """A file's values, the lines (1-based) of its keys and items, and the texts of its plain numbers and booleans."""

    values: dict[str, Any]
    lines: dict[Path, int]
    texts: dict[Path, str]
    moved: Mapping[Path, Path] = field(default_factory=dict)
    """Where what now has another place in `values` is written."""

    def written(self, path: Path) -> Path:
        """The place in the file of what is at `path` in the values."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.moved:
                return self.moved[path[:end]] + path[end:]
        return path

    def has(self, path: Path) -> bool:
        """Whether a key or item stands in the file."""
        return self.written(path) in self.lines

    def line_of(self, path: Path) -> int:
        """The line of a key or item, or of the nearest one above it that stands in the file."""
        path = self.written(path)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class Composer(yaml.SafeLoader):
    """PyYAML's parser with our own rules for what a plain scalar is."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML adds to it, per class


# In this order: an int is also a float.
for name, pattern in (("null", NULL), ("bool", BOOL), ("int", INT), ("float", FLOAT), ("merge", re.compile("<<"))):
    Composer.add_implicit_resolver(TAG + name, re.compile(f"(?:{pattern.pattern})\\Z"), None)


def read_yaml(text: str) -> Document:
    """Parse one document; an empty one is an empty mapping. YamlError names the line of what is wrong."""
    root = compose(text)
    if root is None or is_null(root):
        return Document({}, {}, {})
    if not isinstance(root, yaml.MappingNode):
        raise YamlError(line_of(root), "a configuration is a mapping of keys to values")
    builder = Builder()
    values = builder.mapping(root, ())
    return Document(values, builder.lines, builder.texts)


def compose(text: str) -> yaml.Node | None:
    """PyYAML's nodes of one document."""
    try:
        loader = Composer(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(line, "a character that YAML doesn't allow; remove it") from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        # PyYAML's own message quotes the file, and a file has secrets.
        mark = error.problem_mark or error.context_mark
        what = ", ".join(NAMED.sub("", part) for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark else 1, f"not YAML: {what}") from None
    except RecursionError:
        raise YamlError(1, "nested too deeply") from None
    except (ValueError, OverflowError):  # PyYAML doesn't check the numbers of escapes and directives
        raise YamlError(loader.line + 1, "not YAML: a number out of range") from None
    finally:
        loader.dispose()


@dataclass(slots=True)
class Builder:
    """Turns nodes into values and keeps their places."""

    lines: dict[Path, int] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    open_nodes: list[yaml.Node] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    repeated: int = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of a node."""
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        with self.within(node):
            return self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)

    @contextmanager
    def within(self, node: yaml.Node) -> Iterator[None]:
        """Refuse a node that contains itself, by way of an alias."""
        if any(node is parent for parent in self.open_nodes):
            raise YamlError(line_of(node), "an alias stands within what it names; write it out")
        if len(self.open_nodes) == MAX_DEPTH:
            raise YamlError(line_of(node), "nested too deeply")
        self.open_nodes.append(node)
        try:
            yield
        finally:
            self.open_nodes.pop()

    def count_item(self, node: yaml.Node) -> None:
        """Refuse what aliases have multiplied."""
        if id(node) not in self.seen:
            self.seen.add(id(node))
            return
        self.repeated += 1
        if self.repeated > MAX_REPEATED:
            raise YamlError(line_of(node), f"aliases stand for more than {MAX_REPEATED} values; write out fewer")

    def sequence(self, node: yaml.Node, path: Path) -> tuple[Any, ...]:
        """The items of a sequence."""
        check_tag(node, "seq")
        return tuple(self.item(child, (*path, i), child) for i, child in enumerate(node.value))

    def mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The keys and values of a mapping, its own before those that `<<` merges in."""
        check_tag(node, "map")
        values: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, child in node.value:
            key = self.key(key_node)
            if key_node.tag == TAG + "merge":
                merged += child.value if isinstance(child, yaml.SequenceNode) else [child]
            elif key in values:
                raise YamlError(
                    line_of(key_node), f"key {key!r} stands twice (line {self.lines[(*path, key)]}); drop one"
                )
            else:
                values[key] = self.item(child, (*path, key), key_node)
        for source in merged:
            self.merge(source, values, path)
        return values

    def merge(self, source: yaml.Node, values: dict[str, Any], path: Path) -> None:
        """Add the keys of a merged mapping that aren't there yet."""
        if not isinstance(source, yaml.MappingNode):
            raise YamlError(line_of(source), "only mappings can be merged with <<")
        with self.within(source):
            for key_node, child in source.value:
                self.count_item(key_node)
                key = self.key(key_node)
                if key_node.tag == TAG + "merge":
                    for inner in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                        self.merge(inner, values, path)
                elif key not in values:
                    values[key] = self.item(child, (*path, key), key_node)

    def key(self, node: yaml.Node) -> str:
        """Keys are texts: `on:` is the key "on"."""
        if not isinstance(node, yaml.ScalarNode):
            raise YamlError(line_of(node), "a key must be a text")
        return checked_text(node)

    def item(self, node: yaml.Node, path: Path, place: yaml.Node) -> Any:
        """A value whose place is remembered."""
        self.count_item(node)
        self.lines.setdefault(path, line_of(place))
        return self.value(node, path)

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        """A text, a number, a boolean or None."""
        kind, text = node.tag.removeprefix(TAG), checked_text(node)
        if kind not in {"null", "bool", "int", "float", "str", "merge"}:
            raise YamlError(line_of(node), FOREIGN_TAG)
        if kind not in {"null", "str"}:
            self.texts[path] = text
        try:
            return scalar_value(kind, text)
        except ValueError:
            raise YamlError(line_of(node), f"not a value of type {kind}") from None


def scalar_value(kind: str, text: str) -> Any:
    """The value of a scalar's text; ValueError if an explicit tag asks for what the text isn't."""
    match kind:
        case "null":
            return None
        case "bool":
            if not BOOL.fullmatch(text):
                raise ValueError(text)
            return text.lower() in TRUE
        case "int":
            return int_value(text)
        case "float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def int_value(text: str) -> int:
    """An integer in YAML 1.1's notations: a leading 0 is octal."""
    digits = text.replace("_", "").lower()
    sign, digits = (-1, digits[1:]) if digits.startswith("-") else (1, digits.removeprefix("+"))
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = f"0o{digits[1:]}"
    return sign * int(digits, 0)


def checked_text(node: yaml.ScalarNode) -> str:
    """A scalar's text; escapes can write halves of characters, which no encoding has."""
    text = str(node.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise YamlError(line_of(node), "half a character; write the whole one")
    return text


def check_tag(node: yaml.Node, expected: str) -> None:
    """Collections have no other types than YAML's own."""
    if node.tag != TAG + expected:
        raise YamlError(line_of(node), FOREIGN_TAG)


def is_null(node: yaml.Node) -> bool:
    """Whether a document holds nothing."""
    return isinstance(node, yaml.ScalarNode) and node.tag == TAG + "null"


def line_of(node: yaml.Node) -> int:
    """The 1-based line on which a node starts."""
    return int(node.start_mark.line) + 1
