"""Remote write: completed windows to Prometheus and its like."""
