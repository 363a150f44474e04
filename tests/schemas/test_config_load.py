"""Loading: notes, nothing silently ignored, no secret printed, no input that crashes it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import Config, ConfigError, load_config
from schemas.config.messages import dotted
from schemas.config.pending import PENDING, values_at
from schemas.config.section import Section
from schemas.config.tempo_keys import WITHOUT_EFFECT

SECRETS = """
ingest: {kafka: {sasl_username: u, sasl_password: hunter2}}
metrics_generator:
  storage:
    remote_write:
      - url: http://prometheus:9090/api/v1/write
        headers: {X-Api-Key: hunter2}
        basic_auth: {username: u, password: hunter2}
spanmill: {ingester: {headers: {X-Api-Key: hunter2}}}
"""


def message(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(None, text)
    return str(error.value)


def test_no_file_and_an_empty_file_are_the_defaults() -> None:
    assert load_config(None).with_notes(()) == Config()
    assert load_config(None, "").with_notes(()) == load_config(None, "# nothing\n---\n").with_notes(()) == Config()


def test_that_no_processor_runs_is_noted() -> None:
    assert load_config(None, "server: {}").notes == (
        "<text>:1: overrides.defaults.metrics_generator.processors: "
        "no processor runs, so no metrics are made; write [service-graphs, span-metrics]",
    )


def test_notes_survive_changes_of_the_configuration() -> None:
    config = load_config(None, "compactor: {}")
    assert len(config.notes) == 2
    assert config.replace(multitenancy_enabled=True).notes == config.notes


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "spanmill.yaml"
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: can't be read: No such file or directory; check --config.file"


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spanmill.yaml"
    path.write_bytes("server: {} # ü".encode("latin-1"))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == f"{path}: not UTF-8; save it as such"


def test_a_byte_order_mark_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "spanmill.yaml"
    path.write_text("multitenancy_enabled: true", encoding="utf-8-sig")
    assert load_config(path).multitenancy_enabled


def test_printing_a_configuration_shows_no_secret() -> None:
    config = load_config(None, SECRETS)
    assert config.ingest.kafka.sasl_password.get_secret_value() == "hunter2"
    for shown in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert "hunter2" not in shown


def test_a_configuration_is_frozen() -> None:
    config = load_config(None)
    with pytest.raises(ValueError, match="frozen"):
        config.multitenancy_enabled = True  # type: ignore[misc]


def test_python_code_gives_numbers_of_the_fields_unit() -> None:
    config = Config.model_validate({"metrics_generator": {"registry": {"collection_interval_ms": 5000}}})
    assert config.metrics_generator.registry.collection_interval_ms == 5000


@pytest.mark.parametrize("pending", PENDING, ids=lambda pending: pending.key)
def test_every_pending_setting_exists_and_its_default_asks_for_nothing(pending) -> None:
    defaults = load_config(
        None,
        "metrics_generator: {storage: {remote_write: [{url: http://prometheus/}]}}\n"
        "distributor: {receivers: {otlp: {protocols: {grpc: , http: }}, jaeger: {protocols: {grpc: , thrift_http: }}, "
        "zipkin: , kafka: }}",
    )
    found = list(values_at(defaults, tuple(pending.key.split("."))))
    assert found
    assert not any(pending.asks(value) for _, value in found)


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_no_key_without_effect_is_a_setting_of_ours(key: str) -> None:
    *section, name = key.split(".")
    config = load_config(None, "metrics_generator: {storage: {remote_write: [{url: http://prometheus/}]}}")
    for _, value in values_at(config, tuple(section)):
        assert isinstance(value, Section)
        assert name not in value.yaml_keys()


def test_a_key_without_effect_may_have_any_value() -> None:
    config = load_config(None, "metrics_generator: {ring_mode: [1, {}], storage: {wal: 3}}")
    assert [note.split(": ")[1] for note in config.notes[:2]] == [
        "metrics_generator.ring_mode",
        "metrics_generator.storage.wal",
    ]


def test_a_line_within_a_merged_mapping_is_where_it_is_written() -> None:
    text = "x: &x\n  wait: soon\nmetrics_generator:\n  processor:\n    service_graphs:\n      <<: *x\n"
    assert message(text).splitlines()[1] == (
        "<text>:2: metrics_generator.processor.service_graphs.wait: 'soon' is not a duration; "
        "write a number with its unit, such as 500ms, 15s or 1m30s"
    )


def test_overrides_of_a_tenant_cannot_hide_in_the_static_block() -> None:
    assert message("overrides: {shop: {metrics_generator: {processors: []}}}").startswith(
        "<text>:1: overrides.shop: unknown key; known are defaults, enable_legacy_overrides, "
    )


@pytest.mark.parametrize(
    ("receivers", "grpc", "http"),
    [
        ("", True, True),
        ("otlp:", True, True),
        ("otlp: {protocols: {http: }}", False, True),
        ("otlp: {protocols: {http: {endpoint: ':4318'}, grpc: {}}}", True, True),
    ],
)
def test_protocols_that_are_named_are_on(receivers: str, grpc: bool, http: bool) -> None:
    protocols = load_config(None, f"distributor: {{receivers: {{{receivers}}}}}").distributor.receivers.otlp.protocols
    assert (protocols.grpc is not None, protocols.http is not None) == (grpc, http)


WORDS = st.sampled_from(
    [
        *("metrics_generator", "overrides", "defaults", "registry", "processor", "storage", "remote_write", "spanmill"),
        *("ingest", "kafka", "topics", "spans", "topic", "distributor", "receivers", "otlp", "protocols", "grpc"),
        *("x", "", "1e-06", "15s", "<<", "http://prometheus/", "url", "processors", "span_metrics", "filter_policies"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def yaml_text(value: object) -> str:
    """Flow style, all texts in double quotes."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "{" + ", ".join(f"{yaml_text(k)}: {yaml_text(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(yaml_text, value)) + "]"
        case str():
            return '"' + "".join(f"\\U{ord(c):08X}" for c in value) + '"'
    return str(value)


def problems(text: str) -> list[str]:
    """The lines of a text's errors, none if it loads."""
    try:
        load_config(None, text)
    except ConfigError as error:
        return str(error).split("\n")
    return []


@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_any_values_give_a_configuration_or_its_errors(values: dict[str, object]) -> None:
    assert all(line.startswith("<text>:") for line in problems(yaml_text(values)))


@given(st.text(alphabet=st.sampled_from("ab:- \n\t[]{},&*!|>'\"%#?<~1.\\\x00\ud800\u0085é"), max_size=40))
def test_any_text_gives_a_configuration_or_its_errors(text: str) -> None:
    assert all(line.startswith("<text>:") for line in problems(text))


def test_paths_are_written_with_dots_and_indices() -> None:
    assert dotted(("a", "b", 0, "c")) == "a.b[0].c"
    assert dotted(("a", "b\nc")) == "a.'b\\nc'"
