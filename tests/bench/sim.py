#!/usr/bin/env python3
"""The simulator's speed, in the build with sanitizers: 64 workers, steps of 60 virtual seconds.

    sim.py --bin FOLDER [--json FILE] [--quick] [--report-only]
"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from rows import Rows, arguments, run  # noqa: E402


def main():
    args = arguments().parse_args()
    rows, ratios, events, faults = Rows("sim"), [], [], []
    for first in range(1, 3 if args.quick else 6):
        out, _, _ = run([os.path.join(args.bin, "muster-sim"), "--workers", "64", "--step-ms", "60000", "--seed",
                         str(100 * first + 10), "--seeds", "8", "--json"])
        figures = json.loads(out.splitlines()[-1])
        ratios.append(figures["simulated_s"] / figures["real_s"])
        events.append(figures["events"] / figures["real_s"])
        faults.append(figures["faults"])
    rows.add("64 workers, steps of 60 s, under sanitizers", "times real time", ratios, goal=5000)
    rows.add("events", "1/s", events)
    rows.add("faults struck, each run of 8 histories", "faults", faults)
    sys.exit(rows.end(args))


if __name__ == "__main__":
    main()
