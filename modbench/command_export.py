"""`modbench report --format pytest-benchmark`: a run's folder -> the JSON of pytest-benchmark, on stdout or in a file."""

import json
from pathlib import Path

from rich.console import Console

from modbench.analysis import summarise
from modbench.output_files import put_text
from modbench.record import load_records
from modbench.report.document import Document
from modbench.report.pytest_benchmark import benchmark_entries, pytest_benchmark_file
from modbench.run_folder import read_run_file


def export_command(folder: Path, output: Path | None) -> None:
    """Print the JSON, or write it to `output`; on stderr, a line for everything that is left out.

    Raises:
        RecordError: the records cannot be read.
        OutputError: it is not the folder of a run, or `output` cannot be written.
    """
    run = read_run_file(folder)
    file = load_records(folder)
    document = Document(summarise(file.records, file.num_skipped_lines), run["name"])
    entries = benchmark_entries(file.records, document)
    for note in entries.notes:
        Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
    content = pytest_benchmark_file(entries.benchmarks, document.summary.environment, run.get("started", ""))
    put_text(json.dumps(content, indent=2, allow_nan=False) + "\n", output)
