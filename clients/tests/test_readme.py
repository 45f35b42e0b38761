"""The first program of the Python library's README works as it is printed there."""

import pathlib
import re
import subprocess
import sys
import tempfile

from cluster import ENV, REPO, TIMEOUT, ClusterTest


class Readme(ClusterTest):
    def test_the_first_program_produces_and_consumes_a_record(self):
        readme = (REPO / "clients/python/README.md").read_text()
        program = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
        for node in self.cluster.nodes:
            port = node.rpc_addr.rpartition(":")[2]
            with tempfile.TemporaryDirectory(dir=self.cluster.site) as folder:
                command = [sys.executable, "-c", program.replace("localhost:8400", f"localhost:{port}")]
                (pathlib.Path(folder) / "certs").symlink_to(self.cluster.site / "certs")
                done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, timeout=TIMEOUT, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            appended, read = done.stdout.splitlines()
            self.assertEqual(read, f"{appended.rpartition(' ')[2]} hello")
