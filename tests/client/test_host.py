"""The host application's own settings: none of them changes what a client decides or says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.domain.bucketing import bucket_of, salt_prefix
from rollout.domain.flag import PUBLISHED_SALT

PROGRAM = """
import decimal, json, locale, os, sys, time
sys.setswitchinterval(1.0)
decimal.setcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP, traps=list(decimal.Context().flags)))
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
time.tzset()
import rollout
client = rollout.RolloutClient(environ={"LITELLM_ROLLOUT_PERCENTAGE": "12.345"}, data_dir="data")
os.chdir("elsewhere")
made = [client.evaluate(who=f"user-{number}") for number in range(50)]
flags = client.feature_flags("ada")
before = [made[0].share, [each.bucket for each in made], flags.litellmRolloutPercentage, client.status().problems]
open("../data/kill", "w").close()
time.sleep(0.3)
print(json.dumps([before, client.evaluate().cause]))
"""

HOSTS = {
    "plain": ({}, []),
    "warnings are errors": ({}, ["-W", "error"]),
    "another time zone": ({"TZ": "Asia/Kathmandu"}, []),
    "another locale": ({"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}, []),
    "no locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, []),
    "another hash seed, no assertions": ({"PYTHONHASHSEED": "7"}, ["-OO"]),
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_decides_the_same_in_every_host(host: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    environ, options = HOSTS[host]
    done = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM],
        env={"PATH": "/usr/bin:/bin", **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (share, buckets, percentage, problems), killed = json.loads(done.stdout)
    assert (share, percentage, problems, killed) == (12_345, 12.345, [], "kill_switch")
    assert buckets[:3] == [BUCKETS[number] for number in range(3)]


BUCKETS = [bucket_of(salt_prefix(PUBLISHED_SALT), f"user-{number}") for number in range(3)]
