"""What options of the command line change in a configuration."""

from schemas.config import Config, RemoteWriteConfig
from schemas.config.kafka import check_address


def with_kafka(config: Config, address: str) -> Config:
    """Another broker address; raises ValueError if it is none."""
    kafka = config.ingest.kafka.replace(address=check_address(address))
    return config.replace(ingest=config.ingest.replace(kafka=kafka))


def with_remote_write(config: Config, url: str) -> Config:
    """One endpoint more; raises ValueError if the URL is none."""
    generator = config.metrics_generator
    endpoints = (*generator.storage.remote_write, RemoteWriteConfig(url=url))
    return config.replace(
        metrics_generator=generator.replace(storage=generator.storage.replace(remote_write=endpoints))
    )


def with_remote_write_only(config: Config, url: str) -> Config:
    """One endpoint in place of the configured ones, if the URL isn't empty; raises ValueError if it is none."""
    if not url:
        return config
    generator = config.metrics_generator
    storage = generator.storage.replace(remote_write=(RemoteWriteConfig(url=url),))
    return config.replace(metrics_generator=generator.replace(storage=storage))
