"""A table by rivet, in ranges of a column, to Parquet files.

Arguments: the server's URL, the folder to write to, the table (lineitem), the column to divide by (l_orderkey).
"""

import json
import os
import sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])
table = sys.argv[3] if len(sys.argv) > 3 else "lineitem"
divide_by = sys.argv[4] if len(sys.argv) > 4 else "l_orderkey"
folder.mkdir(parents=True, exist_ok=True)
# YAML is a superset of JSON. Its settings for a server of its own, and the parallelism of the others.
config = {
    "source": {
        "type": "postgres",
        "url": url.replace("postgres://", "postgresql://"),
        "tls": {"mode": "disable"},
        "tuning": {"profile": "fast"},
    },
    "exports": [
        {
            "name": table,
            "table": f"public.{table}",
            "mode": "chunked",
            "chunk_column": divide_by,
            "chunk_count": 4,
            "parallel": 4,
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
