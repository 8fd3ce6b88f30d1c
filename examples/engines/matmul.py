"""The smallest engine that modbench can measure: one matrix product per token, in plain Python (docs/engines.md).

In: a request line on standard input. Out: an answer line on standard output. It stands for a model that you would run here.
"""

import json
import random
import sys
import time
from array import array
from itertools import pairwise
from pathlib import Path


def main() -> None:
    """Take the samples that were asked for and answer with them."""
    request = json.loads(sys.stdin.readline())
    workload, width = request["point"]["workload"], request["point"]["settings"]["options"]["width"]
    num_rows, num_columns = request["tokens"]["shape"]
    ids = array("i", Path(request["tokens"]["path"]).read_bytes())  # int32; `byteswap` it on a big-endian machine
    rows = [ids[row * num_columns : (row + 1) * num_columns] for row in range(num_rows)]
    draw = random.Random(workload["seed"])
    weights = [[draw.random() for _ in range(width)] for _ in range(width)]

    def run(first: int, last: int) -> int:
        """Feed the columns from `first` to `last` of every row, one product per token; gives how many tokens that was."""
        fed = [token for row in rows for token in row[first:last]]
        for token in fed:
            for line in weights:
                sum(weight * token for weight in line)
        return len(fed)

    ttft_s, tpot_s, itl_s = [], [], []
    for number in range(-1, request["num_samples"]):  # the first one warms up
        clock = [time.perf_counter()]
        num_prompt_tokens = run(0, workload["context"])
        clock.append(time.perf_counter())
        num_fed = 0
        for column in range(workload["context"], num_columns):
            num_fed += run(column, column + 1)
            clock.append(time.perf_counter())
        if number >= 0:
            gaps = [after - before for before, after in pairwise(clock[1:])]
            ttft_s.append(clock[1] - clock[0])
            tpot_s.append(sum(gaps) / len(gaps))
            itl_s += gaps
    answer = {
        "protocol_version": 1,
        "samples": {"ttft_s": ttft_s, "tpot_s": tpot_s, "itl_s": itl_s},
        "num_prompt_tokens": num_prompt_tokens,
        "num_output_tokens": num_rows + num_fed,  # the first token of each row ends prefill
        "metrics": {"weights_bytes": 8 * width**2, "num_warmups": 1},
        "environment": {"python": sys.version.split()[0]},
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
