"""Run one measurement: print its table, keep a dated copy, end with one line of JSON."""

import argparse
import sys
from collections.abc import Callable

from bench import report, start

MEASUREMENTS: dict[str, Callable[[bool], list[report.Row]]] = {"start": start.measure}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(MEASUREMENTS), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a first look, with wide intervals")
    args = parser.parse_args(argv)
    return report.publish(args.name, MEASUREMENTS[args.name](args.quick))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
