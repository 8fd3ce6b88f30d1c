"""Starts a program, waits for it and writes down how it ended: a small process between the worker and the program.

In: `OUTCOME LIMIT PROGRAM ARGUMENT...`: the file to write, and bytes of private memory (0: no limit). Out: a JSON object in that
file: `exit_code` (negative: a signal) and `peak_rss_bytes`, or `error` where the program could not be started.

It exists because a process inherits its parent's peak resident set over fork and exec, and the worker's is that of torch. Run by
its path, without modbench: it needs the standard library alone.
"""

import json
import os
import resource
import sys
from pathlib import Path

RUSAGE_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: getrusage(2)


def limit_memory(limit_bytes: int) -> None:
    """Limit what the program may take, and no more than this process may take itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = limit_bytes if soft == resource.RLIM_INFINITY else min(limit_bytes, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def main() -> None:
    """Run the program to its end."""
    outcome, limit, *command = sys.argv[1:]
    if int(limit):
        limit_memory(int(limit))
    found: dict[str, object]
    try:
        pid = os.posix_spawn(command[0], command, os.environ)
    except OSError as error:
        found = {"error": error.strerror}
    else:
        _, status, usage = os.wait4(pid, 0)
        peak_rss_bytes = usage.ru_maxrss * RUSAGE_UNIT_BYTES
        found = {"exit_code": os.waitstatus_to_exitcode(status), "peak_rss_bytes": peak_rss_bytes}
    Path(outcome).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
