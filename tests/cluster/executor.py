"""ParallelCluster's custom action executor, as far as a script can tell the difference.

It is copied into a node and run there: `python3 executor.py NODE_TYPE s3://BUCKET/KEY [ARG...]`
with AWS_ENDPOINT_URL naming the S3 of the simulation. It imports the standard library only.

Like the original (in the cookbook of ParallelCluster 3.12 and later) it downloads the script to
a temporary file, makes it executable, runs dos2unix over it, and starts it without a shell and
with a captured stderr. Two liberties, for the tests' sake: it exits with the script's own code
where the original exits with 1, and it passes on at its own stderr what it has captured, which the
original drops.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

DOWNLOAD_DEADLINE = 60  # seconds, per read
# boto3 would sign the request with the node's role; moto asks only whether it is signed at all.
SIGNATURE = (
    "AWS4-HMAC-SHA256 Credential=SIMULATIONEXECUTOR/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
)
ERROR_FILE = Path("/var/log/parallelcluster/bootstrap_error_msg")
VERSION = "3.13.0"
COOKBOOK_ENVIRONMENT = "/opt/parallelcluster/pyenv/versions/3.12.8/envs/cookbook_virtualenv"
PATH = "/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin:/opt/aws/bin"


def download(url: str) -> str:
    """Fetch an s3:// URL into a new temporary file and return the file's path."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "s3":
        raise ValueError(f"the simulation fetches s3:// URLs only, not {url}")
    endpoint = os.environ["AWS_ENDPOINT_URL"].rstrip("/")
    source = f"{endpoint}/{parts.netloc}{urllib.parse.quote(parts.path)}"
    request = urllib.request.Request(source, headers={"Authorization": SIGNATURE})
    with urllib.request.urlopen(request, timeout=DOWNLOAD_DEADLINE) as response:
        content = response.read()
    with tempfile.NamedTemporaryFile(delete=False) as script:
        script.write(content)
    return script.name


def environment(url: str, arguments: list[str]) -> dict[str, str]:
    """Return all that the script finds in its environment; there is no HOME, and no AWS_*."""
    return {
        "PATH": PATH,
        "CFN_BOOTSTRAP_VIRTUALENV_PATH": COOKBOOK_ENVIRONMENT,
        "_region": "us-east-1",
        "parallelcluster_version": VERSION,
        "cookbook_version": VERSION,
        "chef_version": "18.4.12",
        "cfn_preinstall": "NONE",
        "cfn_preinstall_args": "NONE",
        "cfn_postinstall": url,
        "cfn_postinstall_args": " ".join(arguments),
        "cfn_postupdate": "NONE",
        "cfn_postupdate_args": "NONE",
    }


def report(node_type: str, message: str, code: int, stderr: str, stage: str) -> None:
    """Keep a failure where ParallelCluster keeps it: with the stderr on all but the head node."""
    ERROR_FILE.parent.mkdir(parents=True, exist_ok=True)
    if node_type == "HeadNode":
        ERROR_FILE.write_text(message, encoding="utf-8")
        return
    event = {
        "datetime": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "version": 0,
        "scheduler": "slurm",
        "node-role": node_type,
        "component": "custom-action",
        "level": "ERROR",
        "event-type": "custom-action-error",
        "message": message,
        "detail": {
            "action": "OnNodeConfigured",
            "step": 1,
            "stage": stage,
            "error": {"exit_code": code, "stderr": stderr},
        },
    }
    ERROR_FILE.write_text(json.dumps(event) + "\n", encoding="utf-8")


def main(node_type: str, url: str, *arguments: str) -> int:
    """Run the script at `url` and return its exit code; 128 + N where signal N ended it."""
    os.umask(0o022)
    os.chdir("/tmp" if node_type == "HeadNode" else "/etc/chef")
    try:
        path = download(url)
    except (OSError, urllib.error.URLError) as error:
        message = f"Failed to download OnNodeConfigured script 1 {url}: {error}."
        report(node_type, message, 1, "", "downloading")
        sys.stderr.write(f"{message}\n")
        return 1
    subprocess.run(["chmod", "+x", path], check=True, stderr=subprocess.PIPE)
    subprocess.run(["dos2unix", path], check=True, stderr=subprocess.PIPE)
    try:
        done = subprocess.run(
            [path, *arguments],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(url, list(arguments)),
        )
    except subprocess.CalledProcessError as error:
        code = error.returncode if error.returncode >= 0 else 128 - error.returncode
        message = f"Failed to execute OnNodeConfigured script 1 {url}, return code: {code}."
        report(node_type, message, code, error.stderr, "executing")
        sys.stderr.write(error.stderr)
        return code
    sys.stderr.write(done.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
