"""No secret of a configuration stands in anything that is said about it, however wrongly it is written."""

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from schemas.config import Config, ConfigError, load_config
from schemas.config.load import load_file, load_overrides_file
from schemas.config.overrides import TenantOverrides
from schemas.config.printed import printed
from schemas.config.runtime import RuntimeOverrides
from schemas.config.section import Section

CANARY = "Canary0123456789"

Place = tuple[str, ...]
"""Keys from the root to a value; `*` stands for an item of a list, `<name>` for a key of the user's own."""


def secrets_of(section: type[Section]) -> Iterator[Place]:
    """The places of all secrets that a configuration may have."""
    for key, name in section.yaml_keys().items():
        for place in secrets_in(section.model_fields[name].annotation):
            yield (key, *place)


def secrets_in(kind: Any) -> Iterator[Place]:
    if kind is SecretStr:
        yield ()
    elif isinstance(kind, type) and issubclass(kind, Section):
        yield from secrets_of(kind)
    elif get_origin(kind) is dict:
        yield from (("<name>", *place) for place in secrets_in(get_args(kind)[1]))
    elif get_origin(kind) is tuple:
        yield from (("*", *place) for place in secrets_in(get_args(kind)[0]))
    elif get_origin(kind) is Annotated:
        yield from secrets_in(get_args(kind)[0])
    elif get_origin(kind) in {Union, types.UnionType}:
        for each in get_args(kind):
            yield from secrets_in(each)


SECRETS = sorted(set(secrets_of(Config)))
OF_TENANTS = [place for place in SECRETS if place[:2] == ("overrides", "defaults")]

BESIDE: dict[str, dict[str, Any]] = {
    "basic_auth": {"username": "u"},
    "oauth2": {"client_id": "c", "client_secret": "s", "token_url": "http://tokens/"},
    "remote_write": {"url": "http://prometheus/api/v1/write"},
    "kafka": {"sasl_username": "u", "sasl_password": "p"},
    "plain_text": {"username": "u"},
    "sasl": {"username": "u"},
    "tls_config": {"cert": "PEM"},
}
"""What a configuration needs besides a secret, by the key of the section."""
INSTEAD: dict[str, dict[str, Any]] = {
    "sasl_oauthbearer_token": {"sasl_mechanism": "OAUTHBEARER", "sasl_username": "", "sasl_password": ""},
    "proxy_connect_header": {"proxy_from_environment": True},
}
"""The same by the key of the secret itself."""


def written(place: Place, secret: Any) -> dict[str, Any]:
    """A configuration whose value at a place is a secret."""
    value: Any = secret
    for above, key in reversed(list(zip(("", *place), place, strict=False))):
        if key == "*":
            value = [value]
            continue
        name = "X-Secret" if key == "<name>" else key
        section = place[place.index(key) - 2] if above == "*" else above
        beside = (
            {}
            if key == "<name>" or (place[:2] == ("distributor", "receivers") and above == "kafka")
            else BESIDE.get(section, {})
        )
        value = {**beside, **INSTEAD.get(key, {}), name: value}
    return dict(value)


def shown(read: Config | RuntimeOverrides) -> Iterator[str]:
    yield repr(read)
    yield str(read)
    yield from read.notes
    for each in [read] if isinstance(read, Config) else read.blocks.values():
        yield str(each.model_dump())
        yield each.model_dump_json()


def test_the_places_of_secrets_are_found() -> None:
    assert len(SECRETS) >= 16
    for place in (
        ("ingest", "kafka", "sasl_password"),
        ("metrics_generator", "storage", "remote_write", "*", "oauth2", "client_secret"),
        ("metrics_generator", "storage", "remote_write", "*", "http_headers", "<name>", "secrets", "*"),
        ("overrides", "defaults", "metrics_generator", "remote_write_headers", "<name>"),
        ("spanmill", "ingester", "headers", "<name>"),
    ):
        assert place in SECRETS


@pytest.mark.parametrize("place", SECRETS, ids=".".join)
def test_a_secret_is_read_and_printed_nowhere(place: Place, tmp_path: Path) -> None:
    secret = f"http://u:{CANARY}@proxy:3128" if place[-1] == "proxy_url" else CANARY
    file = tmp_path / "spanmill.yaml"
    file.write_text(yaml.safe_dump(written(place, secret)))
    read = load_file(file)
    assert secret in secret_values(read.config), "the test doesn't write the secret where it is read"
    assert not [text for text in shown(read.config) if CANARY in text]
    text = printed(read, read.config, "shop")
    assert CANARY not in text
    assert "<secret>" in text


def secret_values(value: Any) -> list[str]:
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, dict):
        value = tuple(value.values())
    return [text for each in value for text in secret_values(each)] if isinstance(value, tuple) else []


FORMS = (
    *("{}", "'{}'", '"{}"', '"{}', "'{}", "*{}", "&{}", "&{} x", "!{}", "!{} x", "!!{}", "@{}", "%{}", "`{}"),
    *(
        "[{}]",
        "[{}",
        "[[{}]]",
        "{{{}: 1}}",
        "{{x: {}}}",
        "{{{}",
        "- {}",
        "|{}",
        ">{}",
        "| {}",
        "{}: {}",
        "{}: ",
        "? {}",
    ),
    *('"\\{}"', '"\\x{}"', "<<: {}", "{}\x01", "{}\n{}", "{} # {}", "12:{}", "!!binary {}", "!!int {}", ",{}", "]{}"),
)
"""How a secret may be written by somebody who doesn't think of YAML's characters."""


@given(place=st.sampled_from(SECRETS), form=st.sampled_from(FORMS), extra=st.text(max_size=3))
@example(place=("ingest", "kafka", "sasl_password"), form="*{}", extra="")
@example(place=("ingest", "kafka", "sasl_password"), form="!{}", extra="")
def test_an_error_says_where_a_secret_is_and_not_what(place: Place, form: str, extra: str) -> None:
    text = yaml.safe_dump(written(place, "PLACE")).replace("PLACE", form.format(CANARY, CANARY) + extra)
    assert CANARY not in said_of(lambda: load_config(None, text))


def said_of(load: Callable[[], Config | RuntimeOverrides]) -> str:
    """All that is said of what is loaded, or why it can't be."""
    try:
        return "\n".join(shown(load()))
    except ConfigError as error:
        return f"{error}\n{error!r}"


@given(place=st.sampled_from(SECRETS), what=st.sampled_from([[CANARY], {CANARY: CANARY}, {"x": CANARY}, [[CANARY]]]))
def test_a_secret_of_another_type_is_not_quoted(place: Place, what: Any) -> None:
    said = said_of(lambda: load_config(None, yaml.safe_dump(written(place, what))))
    # A key of the user's own is a name, and an unknown key has to be named.
    assert CANARY not in said.replace(f".{CANARY}", "").replace(f"'{CANARY}':", "").replace(f'"{CANARY}":', "")


@given(place=st.sampled_from(OF_TENANTS), form=st.sampled_from(FORMS))
def test_a_file_of_tenants_is_treated_alike(place: Place, form: str) -> None:
    block = written(place[2:], "PLACE")
    text = yaml.safe_dump({"overrides": {"shop": block}}).replace("PLACE", form.format(CANARY, CANARY))
    assert CANARY not in said_of(lambda: load_overrides_file(Path("tenants.yaml"), text, load_config(None, "")))


def test_defaults_hold_no_secret() -> None:
    assert not any(secret_values(TenantOverrides()))
