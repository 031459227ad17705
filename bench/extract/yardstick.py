"""Two halves of lineitem by `\\copy … (format binary)`, at once, to /dev/null. Argument: the server's URL."""

import subprocess
import sys

url = sys.argv[1]
ask = ["psql", "-X", "-A", "-t", "-d", url, "-c", "SELECT pg_relation_size('lineitem') / 8192 / 2"]
half = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
halves = [f"ctid < '({half},0)'", f"ctid >= '({half},0)'"]
copies = [
    subprocess.Popen(
        ["psql", "-X", "-q", "-d", url, "-c", f"\\copy (SELECT * FROM lineitem WHERE {where}) TO '/dev/null' (FORMAT binary)"]
    )
    for where in halves
]
sys.exit(max(copy.wait() for copy in copies))
