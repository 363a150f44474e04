"""Compiling takes most of a minute, so nothing may be left to compile once a stage is ready."""

import multiprocessing
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from numba.core.registry import CPUDispatcher

from agents.dev import dev_config
from agents.warm_up import EVERY_KERNEL, warm_up
from schemas.config import load_config
from schemas.otlp import Codec
from streams.pipeline import Pipeline
from tests.reference.generated import TENANTS, random_log, random_settings
from tests.streams.log import INTERVAL_MS


def kernels() -> Iterator[CPUDispatcher]:
    """Those of every module that is imported."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("streams", "schemas"):
            yield from (each for each in vars(module).values() if isinstance(each, CPUDispatcher))


def compiled() -> set[str]:
    """The kernels that are compiled, each with the types that it is compiled for."""
    return {f"{each.__module__}.{each.py_func.__name__}{types}" for each in kernels() for types in each.signatures}


def compiled_late() -> tuple[int, list[str]]:
    """How many kernels Python calls in an image, and those that random tenants and spans need beside them."""
    for text in EVERY_KERNEL:
        warm_up(load_config(None, text=text))
    before, rng = compiled(), random.Random(3)
    for _ in range(30):
        tenants = {tenant: random_settings(rng) for tenant in TENANTS}
        pipeline = Pipeline(tenants.__getitem__, INTERVAL_MS, Codec.OTLP, lambda _: None, shards=2)
        pipeline.feed(0, random_log(rng))
        pipeline.close()
    return len(before), sorted(compiled() - before)


def test_an_image_holds_every_kernel_that_spans_need() -> None:
    # In a process of its own: other tests here have compiled what they need.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        count, late = processes.submit(compiled_late).result()

    assert count > 20
    assert late == []


def test_the_kernels_are_warmed_by_a_trace_that_goes_the_whole_way() -> None:
    assert warm_up(dev_config(None)) > 20
