"""A table by rivet to Parquet files: in four ranges of a column, or as it does by default.

Arguments: the server's URL, the folder to write to, the table (lineitem), the column to divide by (l_orderkey; `-`: none).
"""

import json
import os
import sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
table = sys.argv[3] if len(sys.argv) > 3 else "lineitem"
divide_by = sys.argv[4] if len(sys.argv) > 4 else "l_orderkey"
folder.mkdir(parents=True, exist_ok=True)
# Its settings for a server of its own, and the parallelism of the others.
divided = {"mode": "chunked", "chunk_column": divide_by, "chunk_count": 4, "parallel": 4, "tuning": {"profile": "fast"}}
# YAML is a superset of JSON.
config = {
    "source": {
        "type": "postgres",
        "url": url.replace("postgres://", "postgresql://"),
        "tls": {"mode": "disable"},
    },
    "exports": [
        {
            "name": table,
            "table": f"public.{table}",
            **({"mode": "full"} if divide_by == "-" else divided),
            "format": "parquet",
            "compression": "zstd",
            "compression_level": 1,
            "destination": {"type": "local", "path": str(folder.resolve())},
        }
    ],
}
written = folder.parent / "rivet.yaml"
written.write_text(json.dumps(config))
os.chdir(folder.parent)
rivet = Path(sys.executable).parent / "rivet"
os.execv(rivet, [str(rivet), "run", "--no-notify", "--config", str(written)])
