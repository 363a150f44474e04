"""`spanmill config check` and `config print`: what they say, and how they end."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.config_commands import config_group

CONFIG = """\
multitenancy_enabled: true
metrics_generator:
  ring_mode: partition
  processor:
    span_metrics: {dimensions: [region]}
overrides:
  defaults:
    metrics_generator: {processors: [span-metrics], max_active_series: 1000}
  per_tenant_override_config: OVERRIDES
"""
OVERRIDES = """\
overrides:
  shop:
    metrics_generator:
      processors: [service-graphs, spam-metrics]
      max_active_series: 50000
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    config, overrides = tmp_path / "spanmill.yaml", tmp_path / "overrides.yaml"
    config.write_text(CONFIG.replace("OVERRIDES", str(overrides)))
    overrides.write_text(OVERRIDES)
    return config, overrides


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(config_group, [str(argument) for argument in arguments])


def test_what_has_no_effect_and_the_sizes_of_tenants_are_said(files: tuple[Path, Path]) -> None:
    """INST-4; LIM-5a: 24 series for each edge, 19 for each label set of span metrics, limits times shards."""
    config, overrides = files
    checked = command("check", config, "--shards", "3")
    assert checked.stdout.splitlines() == [
        f"{config}:3: metrics_generator.ring_mode: ignored: partitions are assigned by Kafka's consumer groups",
        f"{overrides}:4: overrides.shop.metrics_generator.processors: "
        "ignoring unknown metrics-generator processor 'spam-metrics'",
        "shop: at most 150000 series (50000 in each of 3 shards); 24 for each edge",
        "every other tenant: at most 3000 series (1000 in each of 3 shards); 19 for each label set of span metrics",
        "configuration is valid",
    ]
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_the_file_may_be_an_option_as_with_every_command(files: tuple[Path, Path]) -> None:
    config, _ = files
    assert command("check", "--config.file", config).stdout == command("check", config).stdout
    assert command("check", "--config.file", config, config).exit_code == 2


def test_check_tells_every_error_of_both_files(files: tuple[Path, Path]) -> None:
    config, overrides = files
    config.write_text(config.read_text().replace("ring_mode: partition", "codec: json\n  processors: []"))
    overrides.write_text(OVERRIDES.replace("50000", "-1").replace("processors", "processor"))
    checked = command("check", config)
    assert checked.exit_code == 1
    assert checked.stdout == ""
    assert [line.split(": ")[:2] for line in checked.stderr.splitlines()] == [
        [f"{config}:3", "metrics_generator.codec"],
        [f"{config}:4", "metrics_generator.processors"],
        [f"{overrides}:4", "overrides.shop.metrics_generator.processor"],
        [f"{overrides}:5", "overrides.shop.metrics_generator.max_active_series"],
    ]


def test_a_file_of_tenants_that_is_not_there_is_an_error(files: tuple[Path, Path]) -> None:
    config, overrides = files
    overrides.unlink()
    checked = command("check", config)
    assert checked.exit_code == 1
    assert checked.stderr == (
        f"{overrides}: can't be read: No such file or directory; check overrides.per_tenant_override_config\n"
    )


def test_print_says_where_each_value_comes_from(files: tuple[Path, Path]) -> None:
    config, overrides = files
    lines = command("print", config, "--tenant", "shop").stdout.splitlines()
    assert lines[0] == f"# Tenant shop; its overrides are those of {overrides} for it"
    assert f"multitenancy_enabled: true  # {config}:1" in lines
    assert f"      dimensions: [region]  # {config}:5" in lines
    assert f"      processors: [service-graphs, spam-metrics]  # {overrides}:4 (tenant)" in lines
    assert "  limiter_type: series  # default" in lines
    others = command("print", config).stdout.splitlines()
    assert others[0] == "# Tenant single-tenant; its overrides are the defaults"
    assert f"      processors: [span-metrics]  # {config}:8 (defaults)" in others


def test_print_of_a_broken_file_ends_with_its_errors(files: tuple[Path, Path]) -> None:
    config, overrides = files
    overrides.write_text("overrides: 1")
    printed = command("print", config)
    assert (printed.exit_code, printed.stdout) == (2, "")
    assert f"{overrides}:1: overrides: must be a mapping, not 1" in printed.stderr
