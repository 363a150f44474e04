"""What options of the command line change in a configuration."""

from schemas.config import Config, RemoteWriteConfig
from schemas.config.kafka import check_address


def with_kafka(config: Config, address: str) -> Config:
    """Another broker address; raises ValueError if it is none."""
    kafka = config.ingest.kafka.model_copy(update={"address": check_address(address)})
    changed = config.model_copy(update={"ingest": config.ingest.model_copy(update={"kafka": kafka})})
    return changed.with_notes(config.notes)


def with_remote_write(config: Config, url: str) -> Config:
    """One endpoint more; raises ValueError if the URL is none."""
    generator = config.metrics_generator
    endpoints = (*generator.storage.remote_write, RemoteWriteConfig(url=url))
    storage = generator.storage.model_copy(update={"remote_write": endpoints})
    changed = config.model_copy(update={"metrics_generator": generator.model_copy(update={"storage": storage})})
    return changed.with_notes(config.notes)
