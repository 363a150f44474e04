"""Spanmill's schemas: what flows. Bytes to columns and back."""
