"""The Hub as the doctor asks it: a server on loopback that answers, one that is in trouble, one that is not there."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import json
from pipeline.doctor.finding import findings_of
from pipeline.doctor.hub import check_hub
print(json.dumps([each.to_dict() for each in findings_of("Hub", check_hub)]))
"""


@pytest.fixture
def server():
    """A server that answers every request with the status that its path begins with: `/503`."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status = int(self.path.split("/")[1])
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        running.asked = asked
        yield running
        running.shutdown()
        thread.join()


def ask(tmp_path, **environment):
    """The findings of a new process: the Hub's library reads its settings once."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT, env={**own, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {each["name"]: each for each in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("status", "found", "words"),
    [
        (200, "ok", "answers and has nyu-mll/glue"),
        (503, "note", "an error of its own: 503"),
        (404, "note", "not with nyu-mll/glue: 404"),
    ],
)
def test_what_the_server_says_is_what_is_found(server, tmp_path, status, found, words):
    endpoint = f"http://127.0.0.1:{server.server_port}/{status}"
    findings = ask(tmp_path, HF_ENDPOINT=endpoint, HF_TOKEN="hf_secret" if status == 200 else "")
    assert findings["Hub"]["status"] == found
    assert words in findings["Hub"]["found"]
    assert findings["Hub"]["facts"] == {"endpoint": endpoint, "status": status}
    assert server.asked == [f"/{status}/api/datasets/nyu-mll/glue"]
    assert findings["token of the Hub"]["found"] == ("there" if status == 200 else "none")
    assert "hf_secret" not in json.dumps(findings)
    assert str(tmp_path / "hf") in findings["cache of the Hub"]["found"]


def test_a_port_that_nobody_listens_at_is_said_and_one_that_must_not_be_asked_is_not(server, tmp_path):
    endpoint = f"http://127.0.0.1:{server.server_port}/200"
    offline = ask(tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")["Hub"]
    assert (offline["status"], "nothing was asked" in offline["found"]) == ("note", True)
    assert server.asked == []
    server.shutdown()
    server.server_close()
    closed = ask(tmp_path, HF_ENDPOINT=endpoint)["Hub"]
    assert closed["status"] == "note"
    assert "cannot be reached: ConnectError" in closed["found"]
    assert closed["remedy"]
