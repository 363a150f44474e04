"""The configuration of a process as it is now: its file's, with the tenants' overrides as they were last read.

What of it decides values (`rules`) takes effect only through the log (rules_log.py); all else, such as the headers of
tenants' requests, as soon as it is read.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from agents.config_metrics import ConfigMetrics
from schemas.config import Config, ConfigError, with_tenants
from schemas.config.rules import MAX_HALF_EDGE_BYTES, Rules, RulesTooLargeError

log = structlog.get_logger(__name__)

EMBEDDED_HALF_EDGE_BYTES = 700_000
"""What half-edges may take with the embedded broker, which has no records over 1 MB."""


class LiveConfig:
    """One for all stages of a process. Raises ConfigError or RulesTooLargeError if the files can't be used."""

    def __init__(self, config: Config, metrics: ConfigMetrics, *, embedded: bool = False) -> None:
        self._max_half_edge_bytes = EMBEDDED_HALF_EDGE_BYTES if embedded else MAX_HALF_EDGE_BYTES
        self._metrics, self._problem = metrics, ""
        self.current = config if config.runtime.name else with_tenants(config)
        self.rules = Rules.of(self.current, self._max_half_edge_bytes)
        self.renewals = 0
        """How often the rules have changed since the process was started."""
        metrics.show_overrides(self.current)
        metrics.last_reload_successful.set(1)

    def reload(self) -> None:
        """Read the overrides anew (Tempo OVR-2, INST-3): what can't be used is said, and the last good one holds."""
        try:
            config = with_tenants(self.current)
            if config.runtime.sha256 == self.current.runtime.sha256:
                self._succeed()
                return
            rules = Rules.of(config, self._max_half_edge_bytes)
        except (ConfigError, RulesTooLargeError) as error:
            self._fail(str(error))
            return
        changed = rules != self.rules
        log.info("overrides read anew", file=config.runtime.name, sha256=config.runtime.sha256, rules_changed=changed)
        for note in config.runtime.notes:
            log.info(note)
        self.current = config
        self._metrics.show_overrides(config)
        if changed:
            self.rules = rules
            self.renewals += 1
        self._succeed()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Read the overrides anew in their period, for the time of the context."""
        watch = asyncio.create_task(self._watch(), name="overrides")
        try:
            yield
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        overrides = self.current.overrides
        while overrides.per_tenant_override_config:
            await asyncio.sleep(overrides.per_tenant_override_period_s)
            try:
                await asyncio.to_thread(self.reload)
            except Exception as error:  # a file mustn't end what re-reads it
                log.exception("reading the overrides failed")
                self._fail(repr(error))

    def _fail(self, problem: str) -> None:
        if problem != self._problem:
            for line in problem.splitlines():
                log.error("overrides can't be used, those before hold", what=line)
        self._problem = problem
        for tenant in self.current.runtime.blocks:
            self._metrics.update_failed.labels(tenant).inc()
        self._metrics.last_reload_successful.set(0)

    def _succeed(self) -> None:
        self._problem = ""
        self._metrics.last_reload_successful.set(1)
