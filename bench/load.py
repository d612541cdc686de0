"""Load by ApacheBench: a new connection per request, as HAProxy's checks have it."""

import csv
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

INSTALL = "apt-get install -y --no-install-recommends apache2-utils"


@dataclass(frozen=True)
class Load:
    """One run: requests per second, and milliseconds within which half and 99 % were answered."""

    per_second: float
    p50: float
    p99: float
    requests: int


def load(url: str, clients: int, seconds: float) -> Load:
    """Ask `url` from `clients` at once for about `seconds`; every answer must be 200."""
    if shutil.which("ab") is None:
        raise SystemExit(f"the benchmark needs ab: {INSTALL}")
    with tempfile.TemporaryDirectory() as folder:
        percentiles = Path(folder, "percentiles.csv")
        done = subprocess.run(
            [
                "ab",
                "-q",
                "-t",
                str(max(1, round(seconds))),
                "-n",
                "10000000",
                "-c",
                str(clients),
                "-e",
                percentiles,
                url,
            ],
            capture_output=True,
            text=True,
            timeout=seconds * 10 + 60,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"ab {url}: {done.stderr.strip()}")
        rows = list(csv.reader(percentiles.open()))[1:]
    found = dict(
        re.findall(
            r"^(Requests per second|Complete requests|Failed requests|Non-2xx responses): +([\d.]+)",
            done.stdout,
            re.M,
        )
    )
    if float(found.get("Non-2xx responses", 0)) > 0:
        raise SystemExit(f"{url}: {found['Non-2xx responses']} answers were not 200")
    by_share = {int(float(share)): float(milliseconds) for share, milliseconds in rows}
    return Load(
        float(found["Requests per second"]), by_share[50], by_share[99], int(found["Complete requests"])
    )
