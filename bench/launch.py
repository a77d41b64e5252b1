"""Runs one program and writes what it used, as JSON, to a file descriptor.

It stands between the bench and the program since the kernel starts a
program's peak memory at that of the process that started it: this one is
small. Run as python3 -I -S launch.py DESCRIPTOR PROGRAM ARGUMENT...
"""

import os
import sys
import time

to, argv = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(to, False)
start = time.monotonic()
pid = os.posix_spawnp(argv[0], argv, os.environ)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
wall = time.monotonic() - start
with open("/proc/%d/io" % pid) as f:
    io = dict(line.split(": ") for line in f.read().splitlines())
_, status, ru = os.wait4(pid, 0)
os.write(to, b'{"code": %d, "wall": %f, "cpu": %f, "rss": %d, "written": %d, "wchar": %d}' % (
    os.waitstatus_to_exitcode(status), wall, ru.ru_utime + ru.ru_stime, ru.ru_maxrss * 1024, int(io["write_bytes"]), int(io["wchar"])))
