"""Replay: the samples of a bounded input, from the same pure functions as the live stages, without Faust or tables."""

from agents.replay.request import Request
from agents.replay.run import run

__all__ = ["Request", "run"]
