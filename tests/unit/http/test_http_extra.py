"""The client over HTTP needs the extra `http`, and nothing of Kafka."""

import subprocess
import sys

LIGHT = """
import sys
import clipper_stream.http
heavy = {"aiokafka", "faust", "mode", "rocksdict", "xxhash", "numpy", "clipper_agents"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""
WITHOUT_HTTPX = """
import sys
from importlib.machinery import PathFinder

class WithoutHttpx:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] == "httpx" else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutHttpx()
from clipper_agents.cli.main import main

sys.exit(main(["predict", "sums", "[1]", "--http", "http://127.0.0.1:1"]))
"""


def ended(code: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr


def test_the_client_imports_no_kafka_no_faust_and_no_rocksdb():
    assert ended(LIGHT) == (0, "")


def test_the_command_names_the_extra_that_it_lacks():
    assert ended(WITHOUT_HTTPX) == (3, "error: this command needs httpx: pip install 'clipper-stream[http]'\n")
