"""target_info: what is known of the resources whose spans are measured, a gauge of one for each (Tempo §6.4)."""

from schemas.config import SpanMetricsSettings, TenantSettings
from schemas.labels import TARGET_INFO_RESERVED, decode_labels, label_set, reserved_name
from schemas.otlp import attribute_pairs
from streams.attribute_keys import SERVICE_INSTANCE, SERVICE_NAME, SERVICE_NAMESPACE
from streams.rows import MAX_CACHED_LABEL_SETS, LabelSet

JOB, INSTANCE = b"job", b"instance"

NOTHING = LabelSet(b"", b"")
"""Of a resource of which nothing is known but its name (SM-31): there is no gauge."""

_APART = frozenset(key.encode() for key in (SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE))


class TargetInfoCache:
    """Label sets of resources that were made lately. It decides no value."""

    def __init__(self) -> None:
        self._made: dict[tuple[bytes, tuple[str, ...], bool, int, int], LabelSet] = {}

    def of(self, attributes: bytes, settings: TenantSettings) -> LabelSet:
        """The label set of a resource, from its attributes' fields; `NOTHING` if it tells nothing."""
        own = settings.span_metrics
        assert own is not None
        lengths = settings.max_label_name_length, settings.max_label_value_length
        key = (attributes, own.target_info_excluded_dimensions, own.enable_instance_label, *lengths)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= MAX_CACHED_LABEL_SETS:
                self._made.clear()
            made = self._made[key] = _label_set(attribute_pairs(attributes), own, *lengths)
        return made


def job_text(name: bytes, namespace: bytes) -> bytes:
    """SM-6; empty without a name."""
    return namespace + b"/" + name if name and namespace else name


def identity_pairs(job: bytes, instance: bytes) -> list[tuple[bytes, bytes]]:
    """The labels job and instance; one that is empty isn't added, which would take another of that name away."""
    return [(name, value) for name, value in ((JOB, job), (INSTANCE, instance)) if value]


def _label_set(pairs: list[tuple[bytes, bytes]], own: SpanMetricsSettings, max_name: int, max_value: int) -> LabelSet:
    """SM-30, SM-31."""
    first = dict(reversed(pairs))
    excluded = _APART.union(key.encode() for key in own.target_info_excluded_dimensions)
    known = [
        (reserved_name(key, TARGET_INFO_RESERVED), value)
        for key, value in pairs
        if key and not key[:1].isdigit() and key not in excluded
    ]
    job = job_text(first.get(SERVICE_NAME.encode(), b""), first.get(SERVICE_NAMESPACE.encode(), b""))
    instance = first.get(SERVICE_INSTANCE.encode(), b"") if own.enable_instance_label else b""
    labels = label_set([*known, *identity_pairs(job, instance)], max_name, max_value)
    if labels is None:
        return LabelSet(None, b"")
    final = dict(decode_labels(labels))
    route = final.pop("job", "") or final.get("instance", "")
    final.pop("instance", None)
    return LabelSet(labels, route.encode()) if route and final else NOTHING
