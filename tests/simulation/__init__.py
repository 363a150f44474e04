"""A deterministic simulation of the product's own protocol code: `python -m tests.simulation --help`."""
