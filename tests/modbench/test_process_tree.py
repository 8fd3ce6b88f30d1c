"""A tree ends whole, wherever its members went."""

import os
import signal
import subprocess
import sys

import pytest

from modbench.process_tree import kill_group, rss_bytes_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans find their way back on Linux only")

CODE = """\
import os, signal, sys, time
import psutil
from modbench.process_tree import become_subreaper, end_descendants
become_subreaper()
reader, writer = os.pipe()
for depth in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(depth):
            if os.fork():
                os._exit(0)
        os.write(writer, b"%d\\n" % os.getpid())
        while True:
            time.sleep(60)
pids = b""
while pids.count(b"\\n") < 3:
    pids += os.read(reader, 100)
end_descendants()
print([pid for pid in map(int, pids.split()) if psutil.pid_exists(pid)], psutil.Process().children())
"""


def test_orphans_in_their_own_sessions_are_found_and_reaped():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[] []\n"


def test_a_process_that_leads_no_group_is_killed_alone():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert rss_bytes_of(child.pid) > 0
    kill_group(child.pid)
    assert child.wait(10) == -signal.SIGKILL
    assert rss_bytes_of(child.pid) is None
    kill_group(child.pid)
    assert os.getpgrp(), "this process is still here"
