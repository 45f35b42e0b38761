"""The first programs of the READMEs of the Python and the Node.js library work as they are printed there."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from cluster import ENV, REPO, TIMEOUT, ClusterTest

# The Node.js library as it was compiled.
LIBRARY_NODE = os.environ.get("LIBRARY_NODE")


class Readme(ClusterTest):
    def test_the_first_program_in_python_produces_and_consumes_a_record(self):
        self.check("clients/python/README.md", "python", [sys.executable, "hello.py"])

    @unittest.skipUnless(LIBRARY_NODE, "NO LIBRARY FOR NODE: LIBRARY_NODE is not set")
    def test_the_first_program_in_node_produces_and_consumes_a_record(self):
        # The nodes have IP addresses, of which Node.js warns.
        self.check("clients/node/README.md", "js", ["node", "--no-deprecation", "hello.mjs"])

    def check(self, readme, language, command):
        program = re.search(rf"```{language}\n(.*?)```", (REPO / readme).read_text(), re.DOTALL).group(1)
        for node in self.cluster.nodes:
            port = node.rpc_addr.rpartition(":")[2]
            with tempfile.TemporaryDirectory(dir=self.cluster.site) as name:
                folder = pathlib.Path(name)
                (folder / "certs").symlink_to(self.cluster.site / "certs")
                (folder / command[-1]).write_text(program.replace("localhost:8400", f"localhost:{port}"))
                if LIBRARY_NODE:
                    (folder / "node_modules").mkdir()
                    (folder / "node_modules/seriatim").symlink_to(LIBRARY_NODE)
                done = subprocess.run(command, cwd=folder, env=ENV, capture_output=True, timeout=TIMEOUT, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            appended, read = done.stdout.splitlines()
            self.assertEqual(read, f"{appended.rpartition(' ')[2]} hello")
