#!/usr/bin/env python3
"""Opens the page of a real cluster in a headless Chromium, and uses it as an operator does.

SERIATIM is the program. SCREENSHOTS=DIR keeps what it has looked like. Without a browser it prints SKIPPED, and fails
if SERIATIM_TEST_PAGE=required.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import browser

SERIATIM = os.environ.get("SERIATIM", "seriatim")
SCREENSHOTS = os.environ.get("SCREENSHOTS")
TIMEOUT = 60
POLICY = "".join(f"p, anonymous, *, {action}\n" for action in ("produce", "consume", "commit", "admin", "replicate"))
ENV = {name: value for name, value in os.environ.items() if not name.startswith("SERIATIM_")}
HOSTILE = "<img src=x onerror=window.hacked=1><b>&amp;\"'"


class Cluster:
    """Nodes without TLS on this machine."""

    def __init__(self, nodes):
        self.dir = Path(tempfile.mkdtemp(prefix="seriatim-page."))
        (self.dir / "policy.csv").write_text(POLICY)
        self.processes, self.ready = {}, {}
        for number in range(1, nodes + 1):
            self.start(f"n{number}")

    def start(self, name):
        args = {
            "node-name": name, "data-dir": self.dir / name, "bind-addr": "127.0.0.1:0", "rpc-addr": "127.0.0.1:0",
            "http-addr": "127.0.0.1:0", "acl-policy-file": self.dir / "policy.csv", "insecure": "true",
        }
        first = next(iter(self.ready.values()), None)
        args.update({"join": first["bind_addr"]} if first else {"bootstrap": "true"})
        command = [SERIATIM, "serve", *(f"--{key}={value}" for key, value in args.items())]
        with (self.dir / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=ENV)
        line = self.processes[name].stdout.readline().split()
        if line[:1] != ["ready"]:
            raise AssertionError(f"{name} is not ready: {(self.dir / f'{name}.log').read_text()}")
        self.ready[name] = dict(word.split("=", 1) for word in line[1:])

    def run(self, *args, node="n1", **more):
        command = [SERIATIM, *args, "--addr", self.ready[node]["rpc_addr"], "--insecure"]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=ENV, timeout=TIMEOUT, **more)

    def page(self, node="n1"):
        return f"http://{self.ready[node]['http_addr']}/"

    def kill(self, name):
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
            process.stdout.close()
        shutil.rmtree(self.dir)


class Load:
    """Appends records until it is closed, so that there is something to see."""

    def __init__(self, cluster, *logs):
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.append, args=(cluster, log), daemon=True) for log in logs]
        for thread in self.threads:
            thread.start()

    def append(self, cluster, log):
        command = [SERIATIM, "produce", "--log", log, "--addr", cluster.ready["n1"]["rpc_addr"], "--insecure"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=ENV, **quiet) as process:
            while not self.stopping.wait(0.05):
                try:
                    process.stdin.write("".join(f"a record of {log}\n" for _ in range(20)))
                    process.stdin.flush()
                except BrokenPipeError:
                    return

    def close(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(TIMEOUT)


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(3)
        cls.addClassCleanup(cls.cluster.close)
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                for log in ("audit", "billing.invoices", "sensors"):
                    cls.cluster.run("log", "create", log)
                break
            except subprocess.CalledProcessError as error:
                if "exists" in error.stderr:
                    break
                if time.monotonic() > until:
                    raise AssertionError(error.stderr) from error
                time.sleep(0.1)
        cls.cluster.run("cursor", "set", "reader", "--log", "audit", "0")
        cls.load = Load(cls.cluster, "audit", "default")
        cls.addClassCleanup(cls.load.close)

    def setUp(self):
        self.page = browser.Browser(browser.find())
        self.page.__enter__()
        self.addCleanup(self.page.__exit__)
        self.page.size(1280, 900)

    def open(self, node="n1"):
        self.page.open(self.cluster.page(node))
        self.page.eventually("all nodes are shown", "document.querySelectorAll('#nodes tbody tr').length === 3")

    def look(self, name):
        if SCREENSHOTS:
            os.makedirs(SCREENSHOTS, exist_ok=True)
            self.page.screenshot(f"{SCREENSHOTS}/{name}.png")

    def test_shows_the_cluster_and_nothing_fails(self):
        page = self.page
        self.open("n2")
        page.eventually("the logs", "document.querySelector('#logs tbody').innerText.includes('billing.invoices')")
        text = page.evaluate("document.body.innerText")
        for word in ("Seriatim: seriatim", "n2 (this one)", "sensors", "audit/reader", "is led by"):
            self.assertIn(word, text)
        page.eventually("the rate of a log", "/audit[^]*?\\d+\\/s/.test(document.querySelector('#logs').innerText)")
        page.eventually("a plot", "document.querySelector('#plots path:not(.area)').getAttribute('d').length > 20")
        page.wait(12)
        self.look("desktop")
        self.assertEqual(page.complaints(), [])
        origin = self.cluster.page("n2")
        self.assertTrue(all(url.startswith((origin, "data:", "about:")) for url in page.requested()), page.requested())
        page.scheme("dark")
        self.assertNotEqual(page.evaluate("getComputedStyle(document.body).backgroundColor"), "rgb(246, 247, 249)")
        self.look("dark")

    def test_fits_a_phone(self):
        page = self.page
        page.size(360, 740, scale=2, mobile=True)
        self.open()
        page.eventually("the logs", "document.querySelectorAll('#logs tbody tr').length >= 4")
        page.wait(8)
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        cut = """[...document.querySelectorAll('section *')].filter((e) => {
            const box = e.getBoundingClientRect();
            return box.width > 0 && box.right > 361 && !e.closest('thead');
        }).map((e) => e.outerHTML.slice(0, 80))"""
        self.assertEqual(page.evaluate(cut), [])
        self.look("phone")

    def test_works_by_keyboard(self):
        page = self.page
        self.open()
        page.eventually("the logs", "document.querySelectorAll('#logs tbody tr').length >= 4")
        reached = []
        for _ in range(40):
            page.key("Tab")
            focus = page.evaluate("(document.activeElement.id || document.activeElement.tagName)")
            reached.append(focus)
            if focus == "SUMMARY":
                page.key("Enter", "\r")
                break
        self.assertTrue({"pause", "filter", "SUMMARY"} <= set(reached), reached)
        page.eventually("the replicas", "document.querySelector('#logs details[open]').innerText.includes('term')")
        page.wait(5)
        self.assertTrue(page.evaluate("!!document.querySelector('#logs details[open]')"), "a refresh has closed it")
        self.assertEqual(page.evaluate("document.activeElement.tagName"), "SUMMARY", "a refresh has moved the focus")
        page.evaluate("document.getElementById('filter').focus()")
        page.type("INVOICE")
        page.eventually("only one", "document.querySelectorAll('#logs tbody tr').length === 1")
        self.assertEqual(page.evaluate("document.activeElement.id"), "filter")
        page.type("-no-such-log")
        page.eventually("none", "document.querySelector('#logs').innerText.includes('No log matches.')")
        page.evaluate("document.getElementById('pause').focus()")
        page.key(" ", " ")
        self.assertEqual(page.evaluate("document.getElementById('pause').getAttribute('aria-pressed')"), "true")
        page.wait(1)
        page.events.clear()
        page.wait(5)
        self.assertEqual(page.requested(), [], "it is paused")
        page.key("Enter", "\r")
        page.eventually("it continues", "document.getElementById('pause').textContent === 'Pause'")
        page.wait(3)
        self.assertNotEqual(page.requested(), [])

    def test_everything_has_a_name_for_screen_readers(self):
        page = self.page
        self.open()
        page.eventually("the logs", "document.querySelectorAll('#logs tbody tr').length >= 4")
        page.eventually("the cursors", "document.querySelectorAll('#cursors tbody tr').length > 0")
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
        of_role = lambda *roles: [n for n in nodes if n.get("role", {}).get("value") in roles and not n["ignored"]]
        for role in ("table", "image", "button", "searchbox", "region", "meter"):
            found = of_role(*{"image": ("image", "img"), "region": ("region",)}.get(role, (role,)))
            self.assertTrue(found, role)
            nameless = [node for node in found if not node.get("name", {}).get("value")]
            self.assertEqual(nameless, [], role)
        self.assertGreater(len(of_role("columnheader")), 20)
        self.assertGreater(len(of_role("rowheader")), 6)
        labels = page.evaluate("[...document.querySelectorAll('svg')].map((svg) => svg.getAttribute('aria-label'))")
        self.assertTrue(all(": now " in label for label in labels) and len(labels) == 6, labels)

    def test_a_hostile_name_is_text(self):
        page = self.page

        def answer(params):
            body = self.hostile(params["request"]["url"])
            headers = [{"name": "Content-Type", "value": "application/json"}]
            encoded = base64.b64encode(json.dumps(body).encode()).decode()
            page.post("Fetch.fulfillRequest", requestId=params["requestId"], responseCode=200, responseHeaders=headers, body=encoded)

        page.handlers["Fetch.requestPaused"] = answer
        page.call("Fetch.enable", patterns=[{"urlPattern": "*/api/*"}])
        page.open(self.cluster.page())
        page.eventually("the hostile log", "document.querySelectorAll('#logs tbody tr').length === 2")
        page.eventually("a second answer", "window.performance.getEntriesByType('resource').length > 3")
        text = page.evaluate("document.body.innerText")
        self.assertGreater(text.count(HOSTILE), 10, text)
        self.assertIsNone(page.evaluate("window.hacked"))
        self.assertEqual(page.evaluate("document.querySelectorAll('img, main b:not(figcaption b)').length"), 0)
        self.assertEqual(page.complaints(), [])
        page.size(360, 740, scale=2, mobile=True)
        self.look("hostile")
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), 360)
        # Even if text became HTML by mistake, the browser would not run it.
        page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
        page.wait(1)
        self.assertIsNone(page.evaluate("window.hacked"))

    def hostile(self, url):
        now = int(time.time() * 1000)
        replica = {"node": HOSTILE, "role": HOSTILE, "term": 1, "commit_index": 1, "applied_index": 1, "lag": 3,
                   "stored_bytes": 1, "damage": HOSTILE, "stalled": HOSTILE, "damaged_ranges": 1}
        log = {"name": HOSTILE, "placed_on": [HOSTILE + "2"], "replicas_wanted": 3, "leader": HOSTILE, "term": 1,
               "commit_index": 1, "first_offset": 0, "next_offset": 1, "stored_bytes": 5, "voters": [HOSTILE],
               "last_append_ms": now, "replicas": [replica]}
        if "/api/logs" in url:
            return {"time_ms": now, "total": 1, "matching": 1, "from": 0, "catalog": {**log, "name": None},
                    "logs": [log], "cursors_total": 1, "cursors": [{"cursor": HOSTILE, "lag": 1, "node": HOSTILE}]}
        node = {"name": HOSTILE, "node_id": HOSTILE, "rpc_addr": HOSTILE, "bind_addr": HOSTILE, "is_heard": True,
                "state": HOSTILE, "replicas": 1, "waits_for": "", "error": HOSTILE}
        return {"time_ms": now, "cluster": {"name": HOSTILE, "id": HOSTILE}, "me": HOSTILE, "version": HOSTILE,
                "balancing": False, "logs": 1, "problems": [{"severity": "error", "text": HOSTILE}],
                "nodes": [node, {**node, "node_id": "2", "error": None, "waiting_for": HOSTILE}],
                "events": [{"first_ms": now, "last_ms": now, "kind": HOSTILE, "severity": "error", "count": 2, "text": HOSTILE}]}

    def test_z_shows_a_dead_node_and_then_that_nothing_answers(self):
        page = self.page
        self.open()
        page.eventually("healthy", "document.getElementById('state').textContent === 'healthy'")
        self.cluster.kill("n3")
        page.eventually("the problem", "document.getElementById('problems').innerText.includes('node n3 is not heard')")
        page.eventually("the event", "document.getElementById('events').innerText.includes('node n3 is not heard')")
        page.eventually("the state", "/warning|critical/.test(document.getElementById('state').textContent)")
        page.wait(3)
        self.look("dead-node")
        self.assertEqual(page.complaints(), [])
        self.cluster.kill("n1")
        page.eventually("no answer", "document.getElementById('state').textContent.startsWith('no answer')")


if __name__ == "__main__":
    if not browser.find():
        print("SKIPPED: the page is not tested, because no Chromium is installed (Debian: apt install chromium)", file=sys.stderr)
        sys.exit(1 if os.environ.get("SERIATIM_TEST_PAGE") == "required" else 0)
    unittest.main(verbosity=2)
