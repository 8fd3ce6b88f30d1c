"""A launch server whose child has been killed and never goes, as one in a driver's call: it says `ready`, `pid`, and no more."""

import subprocess
import sys
import time

if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        sys.stdout.write(f"pid {child.pid}\n")
        sys.stdout.flush()
        time.sleep(600)
