"""Own metrics of the configuration: what was read, and whose rules are in force."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas.config import Config, TenantSettings
from schemas.config.limits import limits_defaults, limits_overrides
from schemas.config.tenant import PROCESSORS


class ConfigMetrics:
    """Tempo's names where Tempo has the metric (§15.1, §15.7)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.last_reload_successful = Gauge(
            "tempo_runtime_config_last_reload_successful",
            "Whether the overrides file could be used when it was read last.",
            registry=registry,
        )
        self.hash = Gauge("tempo_runtime_config_hash", "Of the overrides file in use.", ["sha256"], registry=registry)
        self.update_failed = Counter(
            "tempo_metrics_generator_active_processors_update_failed",
            "Times that a tenant's overrides could not be read anew.",
            ["tenant"],
            registry=registry,
        )
        self.active_processors = Gauge(
            "tempo_metrics_generator_active_processors",
            "1 for each processor that runs for a tenant.",
            ["tenant", "processor"],
            registry=registry,
        )
        self.revision = Gauge(
            "spanmill_rules_revision",
            "Of the rules in force in a partition.",
            ["stage", "partition"],
            registry=registry,
        )
        self.obeying = Gauge(
            "spanmill_rules_obeying",
            "1 while this process follows rules of the log that aren't those of its own files.",
            ["stage"],
            registry=registry,
        )
        self.announced = Counter(
            "spanmill_rules_announced", "Configuration records appended to the log.", ["stage"], registry=registry
        )
        self.unreadable = Counter(
            "spanmill_rules_unreadable",
            "Configuration records whose rules this program can't follow.",
            ["stage"],
            registry=registry,
        )
        self.limits_defaults = Gauge(
            "tempo_limits_defaults", "Limits of tenants without overrides.", ["limit_name"], registry=registry
        )
        self.limits_overrides = Gauge(
            "tempo_limits_overrides", "Limits of tenants with overrides.", ["limit_name", "user"], registry=registry
        )
        self._shown: dict[str, frozenset[str]] = {}

    def show_overrides(self, config: Config) -> None:
        """What the overrides in use say."""
        for name, value in limits_defaults(config).items():
            self.limits_defaults.labels(name).set(value)
        self.limits_overrides.clear()
        for name, user, value in limits_overrides(config):
            self.limits_overrides.labels(name, user).set(value)
        self.hash.clear()
        if config.runtime.sha256:
            self.hash.labels(config.runtime.sha256).set(1)

    def show_processors(self, tenant: str, settings: TenantSettings) -> None:
        """INST-11: 1 or 0 for every name; parts of processors, which are settings of them, are always 0."""
        parts = {
            "span-metrics": settings.span_metrics,
            "service-graphs": settings.service_graphs,
            "host-info": settings.host_info,
        }
        active = frozenset(name for name, own in parts.items() if own is not None)
        if self._shown.get(tenant) == active:
            return
        self._shown[tenant] = active
        for name in PROCESSORS:
            self.active_processors.labels(tenant, name).set(name in active)
