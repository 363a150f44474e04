"""Host info: the hosts from which spans come, a gauge of one for each (Tempo §8)."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from schemas.labels import decode_labels, label_set
from schemas.metrics import MetricId
from schemas.otlp import Mode, SpanFrame
from streams.interner import Interner
from streams.plan import Plan
from streams.rows import LabelSet, ProcessorRows, counter_rows
from streams.span_columns import SpanColumns

PROCESSOR = "host-info"

_TENANT, _IDENTIFIER, _VALUE = range(3)


class HostInfo:
    """The hosts of one open window."""

    def __init__(self, plan: Plan, interner: Interner) -> None:
        self._plan, self._interner = plan, interner
        self._hosts: Counter[tuple[int, int, int]] = Counter()
        """Resources by tenant, place of the identifier among the tenant's, and value."""

    def fold(self, frame: SpanFrame, tenant_of_record: npt.NDArray[np.int32], columns: SpanColumns) -> None:
        """Add a frame's resources, also those whose spans are all outside the slack (HI-4)."""
        record = frame.resources.record
        tenants = tenant_of_record[record]
        # Most tenants look for the same: together they cost one pass over the resources, not one each.
        for identifiers, numbers in self._by_identifiers(tenants).items():
            left = np.isin(tenants, numbers) & ~frame.records.no_metrics[record]
            for place, key in enumerate(identifiers):
                values = columns.resource_values[self._plan.row(key, Mode.FIRST_NON_EMPTY_STRING)]
                found = left & (values > 0)  # neither absent nor empty
                left &= ~found
                # One number for both: of pairs `unique` takes 40 times as long.
                pairs = tenants[found].astype(np.int64) << 32 | values[found]
                for pair, count in zip(*(each.tolist() for each in np.unique_counts(pairs)), strict=True):
                    self._hosts[pair >> 32, place, pair & 0xFFFF_FFFF] += count

    def _by_identifiers(self, tenants: npt.NDArray[np.int32]) -> dict[tuple[str, ...], list[int]]:
        """The distinct ones of these tenants that have host info, by where they look for it."""
        out: dict[tuple[str, ...], list[int]] = {}
        for number in np.unique(tenants).tolist():
            host_info = self._plan.settings[number].host_info
            if host_info is not None:
                out.setdefault(host_info.host_identifiers, []).append(number)
        return out

    def close(self) -> tuple[ProcessorRows, Counter[str]]:
        """The window's rows, and by tenant the resources whose host makes no valid labels (INT-6)."""
        invalid: Counter[str] = Counter()
        keys: list[tuple[str, LabelSet]] = []
        for host, count in self._hosts.items():
            made, tenant = self._label_set(*host), self._plan.tenants[host[_TENANT]]
            if made.labels is None:
                invalid[tenant] += count
            else:
                keys.append((tenant, made))
        one, none = np.ones(len(keys), np.uint64), np.zeros(len(keys), np.int64)
        return ProcessorRows([counter_rows(MetricId.HOST_INFO, one, one, none)], keys), invalid

    def _label_set(self, tenant: int, identifier: int, value: int) -> LabelSet:
        """HI-2."""
        settings = self._plan.settings[tenant]
        assert settings.host_info is not None
        source = settings.host_info.host_identifiers[identifier].encode()
        pairs = [(b"grafana_host_id", self._interner.text(value)), (b"host_source", source)]
        labels = label_set(pairs, settings.max_label_name_length, settings.max_label_value_length)
        if labels is None:
            return LabelSet(None, b"")
        # Names may have been cut.
        host = next(iter(dict(decode_labels(labels)).values()), "")
        return LabelSet(labels, host.encode())
