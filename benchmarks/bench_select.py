"""What selecting over a dataset costs beside the model: rows a second, memory by rows.

An engine that answers at once; JSONL in, JSONL out. Each number of rows runs in a process of its
own: rows a second, with reading, checking for repetitions, scoring, selecting and writing, and the
peak of the memory that is resident.

    python benchmarks/bench_select.py [--n 4] [--rows 10000,1000000] [--json FILE]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import common
from bench_overhead import AtOnce

from bestofn import BestOfN, FLIPLikelihood
from bestofn.dataset import select_dataset


def measure(rows: int, n: int, folder: Path) -> dict[str, float]:
    source = folder / f"{rows}.jsonl"
    if not source.exists():
        with source.open("w") as file:
            file.writelines(
                f'{{"prompt": "Write something about the number {i}.", "key": {i}}}\n'
                for i in range(rows)
            )
    engine = AtOnce()
    best = BestOfN(engine, FLIPLikelihood(engine), n=n)
    output = folder / "out.jsonl"
    output.unlink(missing_ok=True)
    started = time.perf_counter()
    summary = select_dataset(source, output, best, id_column="key", progress=False)
    seconds = time.perf_counter() - started
    assert summary.rows == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = output.stat().st_size / rows
    return {"rows": rows, "per_second": rows / seconds, "peak_mib": peak, "row_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--rows", default="10000,100000")
    parser.add_argument("--repeats", type=int, default=3, help="of all but the largest number")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.n, args.folder)))
        return
    sizes = [int(size) for size in args.rows.split(",")]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            runs = []
            for _ in range(args.repeats if size < max(sizes) else 1):
                command = [sys.executable, __file__, "--n", str(args.n), "--only", str(size)]
                done = subprocess.run(
                    [*command, "--folder", folder], capture_output=True, text=True, check=True
                )
                runs.append(json.loads(done.stdout))
            results.append({name: median(run[name] for run in runs) for name in runs[0]})
    common.table(
        ["rows", "rows/s", "peak memory, MiB", "bytes a row"],
        [
            (r["rows"], f"{r['per_second']:.0f}", f"{r['peak_mib']:.0f}", f"{r['row_bytes']:.0f}")
            for r in results
        ],
    )
    common.write(args.json, {"n": args.n, "sizes": results})


if __name__ == "__main__":
    main()
