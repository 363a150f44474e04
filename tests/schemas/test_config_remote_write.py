"""Remote-write endpoints as a file has them: Prometheus' block, its defaults, and what has no effect here."""

from pathlib import Path

from schemas.config import RemoteWriteConfig, load_config

TESTDATA = Path(__file__).parent / "config_testdata"
URL = "http://prometheus:9090/api/v1/write"


def test_st_3_defaults_are_prometheus() -> None:
    """ST-3."""
    endpoint = RemoteWriteConfig(url=URL)
    assert endpoint.remote_timeout_s == 30
    assert endpoint.protobuf_message == "prometheus.WriteRequest"
    assert (endpoint.queue_config.min_backoff_s, endpoint.queue_config.max_backoff_s) == (0.03, 5)
    assert endpoint.queue_config.max_samples_per_send == 2000
    assert (endpoint.metadata_config.send, endpoint.metadata_config.send_interval_s) == (True, 60)
    assert endpoint.follow_redirects


def test_st_3_every_key_of_an_entry_is_read() -> None:
    """ST-3."""
    config = load_config(TESTDATA / "remote_write_endpoints.yaml")
    mimir, token, bearer = config.metrics_generator.storage.remote_write
    assert mimir.oauth2 is not None
    assert mimir.oauth2.scopes == ("write",)
    assert mimir.tls_config.server_name == "mimir"
    assert [rule.action for rule in mimir.write_relabel_configs] == ["keep", "labeldrop", "replace"]
    assert mimir.write_relabel_configs[2].regex == "200", "a number is its text"
    assert mimir.queue_config.sample_age_limit_s == 7200
    assert token.bearer is not None
    assert token.bearer.type == "Token"
    assert bearer.bearer is not None
    assert bearer.bearer.credentials_file == Path("/run/token")
    assert "hunter2" not in repr(config)


def test_st_4_what_tempo_forces_has_no_effect_and_is_named() -> None:
    """ST-4."""
    notes = load_config(TESTDATA / "remote_write_endpoints.yaml").notes
    ignored = [note.split(": ")[1].rpartition(".")[2] for note in notes if "remote_write" in note.split(": ")[1]]
    assert ignored == [
        "send_exemplars",
        "send_native_histograms",
        "enable_http2",
        "capacity",
        "min_shards",
        "max_shards",
        "batch_send_deadline",
        "retry_on_http_429",
    ]
