"""The configuration: Tempo's YAML, one frozen model per stage, composed in `Config`."""

from schemas.config.config import Config
from schemas.config.load import load_all, load_config, load_overrides_file, with_tenants
from schemas.config.messages import ConfigError
from schemas.config.overrides import TenantOverrides
from schemas.config.remote_write import RemoteWriteConfig
from schemas.config.runtime import RuntimeOverrides
from schemas.config.settings import (
    DimensionMappingSettings,
    FilterPolicySettings,
    HistogramSettings,
    HostInfoSettings,
    IntrinsicDimensionsSettings,
    LimitSettings,
    MultiplierSettings,
    PolicyPartSettings,
    ServiceGraphsSettings,
    SpanMetricsSettings,
    TenantSettings,
)
from schemas.config.tenant import tenant_settings

__all__ = [
    "Config",
    "ConfigError",
    "DimensionMappingSettings",
    "FilterPolicySettings",
    "HistogramSettings",
    "HostInfoSettings",
    "IntrinsicDimensionsSettings",
    "LimitSettings",
    "MultiplierSettings",
    "PolicyPartSettings",
    "RemoteWriteConfig",
    "RuntimeOverrides",
    "ServiceGraphsSettings",
    "SpanMetricsSettings",
    "TenantOverrides",
    "TenantSettings",
    "load_all",
    "load_config",
    "load_overrides_file",
    "tenant_settings",
    "with_tenants",
]
