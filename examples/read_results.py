"""Read a finished matrix without running anything: print a table, write it as CSV, and draw a plot.

    python examples/read_results.py ablations/cold_start.yaml --out my_results

The matrix file must have been run before (`vold-bench run-matrix ablations/cold_start.yaml`, or `make matrix`).
Accuracies of the small world are those of synthetic problems; the table and the plot say so.
"""

import argparse
import sys
from pathlib import Path

import vold_bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("matrix", type=Path, help="matrix file, such as ablations/cold_start.yaml")
    parser.add_argument("--profile", default="small", help="the profile that it was run with (default: small)")
    parser.add_argument("--store", type=Path, help="directory of finished stages (default: results/store)")
    parser.add_argument("--out", type=Path, default=Path("my_results"), help="directory for the CSV file and the plot")
    options = parser.parse_args()

    matrix = vold_bench.open_matrix(options.matrix, profile=options.profile, store=options.store)
    if matrix.verdicts.empty:
        sys.exit(f"{options.matrix}: no evaluation is finished; run `vold-bench run-matrix {options.matrix}` first")
    if matrix.missing:
        print(f"{len(matrix.missing)} stages are not finished; what depends on them is left out")

    accuracy = matrix.accuracy()
    print(f"{matrix.question} (seeds {', '.join(map(str, matrix.seeds))})")
    print(accuracy.to_string(index=False, formatters={"accuracy": "{:.1%}".format}))
    options.out.mkdir(parents=True, exist_ok=True)
    accuracy.to_csv(options.out / "accuracy.csv", index=False)

    axes = accuracy.pivot(index="arm", columns="dataset", values="accuracy").mul(100).plot.barh(figsize=(8, 5))
    title = "synthetic problems" if bool(accuracy["synthetic"].all()) else matrix.name
    axes.set(xlabel="accuracy, %", ylabel="", title=f"{matrix.question}\n({title})")
    axes.figure.savefig(options.out / "accuracy.svg", bbox_inches="tight")
    print(f"wrote {options.out / 'accuracy.csv'} and {options.out / 'accuracy.svg'}")


if __name__ == "__main__":
    main()
