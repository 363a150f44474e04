"""Faults on real Kafka and real Prometheus, under load: `make faults`, or `python -m tests.faults NAME`."""
