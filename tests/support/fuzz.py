"""Try the properties of `properties.py` on random inputs for a given time, and print on how many: `make fuzz`.

The exit code is 1 if one did not hold; hypothesis prints the smallest input that it found for it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import traceback
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, seed, settings

from tests.support.properties import PROPERTIES
from visual_transformers.tables import print_table

ROUND = 100
"""Inputs that a property is tried on before the next one is."""


def counted(property_: Any, counts: Counter[str], name: str) -> Any:
    """The same property, each of whose inputs is counted."""
    inner = property_.hypothesis.inner_test

    def count(*arguments: Any, **options: Any) -> None:
        counts[name] += 1
        inner(*arguments, **options)

    property_.hypothesis.inner_test = count
    return property_


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long, about")
    parser.add_argument("--select", default="", help="only properties whose name contains this text")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failed: dict[str, str] = {}
    quiet = settings(max_examples=ROUND, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    chosen = {name: found for name, found in PROPERTIES.items() if options.select in name}
    tried = {name: counted(quiet(found), counts, name) for name, found in chosen.items()}
    end = time.monotonic() + options.seconds
    for name in itertools.cycle(tried):
        if time.monotonic() > end or len(failed) == len(tried):
            break
        if name not in failed:
            try:
                seed(random.getrandbits(64))(tried[name])()
            except Exception:
                failed[name] = traceback.format_exc()
                print(failed[name], file=sys.stderr, flush=True)
    rows = [
        {"property": name, "inputs": str(counts[name]), "holds": "no" if name in failed else "yes"} for name in tried
    ]
    print_table("properties", rows)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
