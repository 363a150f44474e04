"""Read mutated OTLP JSON that ends where readable memory ends; any read behind its end kills the process.

`python -m tests.otlp_json_guard SEED COUNT`. Run it with NUMBA_BOUNDSCHECK=1: accesses to arrays are checked then.
"""

import random
import sys

from schemas.otlp.json_fields import fields
from schemas.otlp.json_kernel import FAULT, transcode, work
from tests.otlp_guard import GuardedMemory
from tests.otlp_json_samples import mutated

DENSE = (b'{"resourceSpans":[' + b"{}," * 5000 + b"{}]}", b'{"resourceSpans":[{"schemaUrl":"' + b"\\n" * 5000 + b'"}]}')


def main(seed: int, count: int) -> None:
    """Print how many texts were accepted, and how many refused."""
    memory, rng = GuardedMemory(), random.Random(seed)
    verdicts = [0, 0]
    for text in (*DENSE, *(mutated(rng) for _ in range(count))):
        # Cut off anywhere, too: it ends in the middle of everything.
        for value in (text, text[: rng.randrange(len(text))]):
            made = work(len(value))
            transcode(memory.place(value), len(value), fields(), made)
            verdicts[int(made.now[FAULT] != 0)] += 1
    print(*verdicts)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
