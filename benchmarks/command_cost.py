"""Runs a command and writes what it cost: `python command_cost.py FILE COMMAND...`; ends with the command's status.

FILE gets JSON: `core_seconds` and `peak_bytes` of the command's process. Linux counts what a process holds when it
starts a command as memory of that command. So a command is started from this small process, which imports little.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

file, *command = sys.argv[1:]
process = subprocess.Popen(command)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
unit = 1 if sys.platform == "darwin" else 1024
cost = {"core_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * unit}
Path(file).write_text(json.dumps(cost))
sys.exit(process.returncode)
