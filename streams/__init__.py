"""Spanmill's streams: how it is transformed. Pure functions and states over frames."""
