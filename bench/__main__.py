"""Run one measurement: print its table, keep a dated copy, end with one line of JSON."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench import labelling, learning, report, start


def training(args: argparse.Namespace) -> report.Found:
    from bench import training as beside  # it imports torch, which the other measurements do without

    return beside.measure(args.quick, args.pairs, args.size, args.base_dtype)


def acquisition(args: argparse.Namespace) -> report.Found:
    from bench import acquisition as asked_first  # it imports torch

    return asked_first.measure(args.quick)


def acquisition_lora(args: argparse.Namespace) -> report.Found:
    from bench import acquisition_lora as trained_on  # it imports torch

    return trained_on.measure(args.quick)


def generation(args: argparse.Namespace) -> report.Found:
    from bench import generation as engine  # it imports torch

    return engine.measure(args.quick, args.size, args.dtype, args.pairs, args.threads)


def precision(args: argparse.Namespace) -> report.Found:
    from bench import precision as beside_float32  # it imports torch

    return beside_float32.measure(args.quick, args.pairs)


def prompts(args: argparse.Namespace) -> report.Found:
    from bench import prompts as scoring  # it imports transformers

    return scoring.measure(args.quick, args.size, args.pairs)


def libraries(args: argparse.Namespace) -> report.Found:
    from bench import libraries as beside  # it imports them

    return beside.measure(args.quick)


def matrix(args: argparse.Namespace) -> report.Found:
    from bench import matrix as of_cells  # it imports Gradio and a browser

    return of_cells.alone(args.quick)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], report.Found]] = {
    "acquisition": acquisition,
    "acquisition-lora": acquisition_lora,
    "crowd": lambda args: labelling.crowd(args.quick),
    "generation": generation,
    "labelling": lambda args: labelling.measure(args.quick),
    "libraries": libraries,
    "learning": lambda args: learning.measure(learning.QUICK if args.quick else learning.Plan()),
    "precision": precision,
    "prompts": prompts,
    "matrix": matrix,
    "start": lambda args: report.Found(start.measure(args.quick)),
    "training": training,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=sorted(MEASUREMENTS), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a first look, with wide intervals")
    parser.add_argument(
        "--pairs",
        type=Path,
        help="training, generation, precision, prompts: preference pairs, one {chosen, rejected} per line, gzip",
    )
    parser.add_argument(
        "--size", choices=("6M", "90M", "500M"), help="training, generation, prompts: models of one size only"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8", "bfloat16-in-float32"),
        default="float32",
        help="generation: of both sides; int8: of our weights alone; bfloat16-in-float32: of the base's files, computed in float32",
    )
    parser.add_argument("--threads", type=int, default=1, help="generation: of either side")
    parser.add_argument(
        "--base-dtype", choices=("float32", "bfloat16"), help="training: of our base; without it our defaults"
    )
    args = parser.parse_args(argv)
    return report.publish(args.name, *MEASUREMENTS[args.name](args))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
