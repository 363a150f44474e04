"""The configuration: Tempo's YAML, one frozen model per stage, composed in `Config`."""

from schemas.config.config import Config
from schemas.config.load import load_config
from schemas.config.messages import ConfigError
from schemas.config.remote_write import RemoteWriteConfig
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
    "ServiceGraphsSettings",
    "SpanMetricsSettings",
    "TenantSettings",
    "load_config",
    "tenant_settings",
]
