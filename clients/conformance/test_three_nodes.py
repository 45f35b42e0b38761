"""Runs each library with three real nodes that are killed and restarted. SERIATIM names the program under test."""

import collections
import contextlib
import pathlib
import sys
import threading
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

from cluster import ClusterTest  # noqa: E402
from driver import Driver  # noqa: E402
from test_behaviour import drivers  # noqa: E402

from seriatim.v1 import log_service_pb2 as pb  # noqa: E402

RECORDS = 20_000
# The records are sent in this many pieces, so that the test knows how far the producer is.
PIECES = 400
# How long all records may take, with elections.
PATIENCE = 240


class ThreeNodes(ClusterTest):
    """Has a test for each language and scenario: test_LANGUAGE_SCENARIO."""

    def driver(self, command, user="root", nodes=(0, 1, 2)):
        started = Driver(command)
        self.addCleanup(started.stop)
        certs = self.cluster.site / "certs"
        tls = {"ca": "ca", "cert": f"client-{user}", "key": f"client-{user}-key"}
        tls = {name: str(certs / f"{file}.pem") for name, file in tls.items()}
        started.ask("connect", addrs=[self.cluster.nodes[node].rpc_addr for node in nodes], tls=tls)
        return started

    def log(self, name):
        """Creates a log with three replicas, and waits until every node serves it."""
        request = pb.CreateLogRequest(log=name, config=pb.LogConfig(replicas=3))
        self.cluster.stubs[0].CreateLog(request, timeout=30)
        return name

    def next_offset(self, log):
        return self.cluster.stubs[0].GetLog(pb.GetLogRequest(log=log), timeout=30).log.position.next_offset

    def produce_while(self, command, log, disturb):
        """Produces and consumes at the same time, while `disturb(allow, wait)` does its work.

        `allow(n)` lets the producer send the pieces up to the n-th. `wait(n)` waits until that one is acknowledged.
        """
        driver = self.driver(command)
        begin = self.next_offset(log)
        driver.ask("consumer", consumer="c", log=log, start="offset", offset=begin)
        driver.ask("producer", producer="p", log=log)
        count = RECORDS // PIECES
        allowed, acknowledged, read, problems = threading.Semaphore(0), threading.Semaphore(0), [], []

        def produce():
            sent = collections.deque()
            for piece in range(PIECES):
                assert allowed.acquire(timeout=PATIENCE), "the test does not go on"
                sent.append(driver.start("send_many", producer="p", prefix=f"{piece}-", count=count))
                # Three pieces are on their way.
                if len(sent) > 3:
                    sent.popleft().result(PATIENCE)
                    acknowledged.release()
            for pending in sent:
                answer = pending.result(PATIENCE)
                acknowledged.release()
            assert answer["last_offset"] == begin + RECORDS - 1, answer

        def consume():
            while len(read) < RECORDS:
                most = min(500, RECORDS - len(read))
                read.extend(driver.ask("next", timeout=PATIENCE, consumer="c", max=most, timeout_ms=5000)["records"])

        def checked(work):
            try:
                work()
            except BaseException as problem:  # noqa: BLE001 The test fails with it.
                problems.append(problem)
                # The test must not wait for what does not come.
                acknowledged.release(PIECES)

        threads = [threading.Thread(target=checked, args=(work,)) for work in (produce, consume)]
        for thread in threads:
            thread.start()

        permits = reached = 0

        def allow(piece):
            nonlocal permits
            allowed.release(piece - permits)
            permits = piece

        def wait(piece):
            nonlocal reached
            while reached < piece:
                assert acknowledged.acquire(timeout=PATIENCE), f"piece {reached} is not acknowledged"
                reached += 1

        try:
            disturb(allow, wait)
        finally:
            allowed.release(PIECES)
            for thread in threads:
                thread.join(PATIENCE)
        for problem in problems:
            raise problem
        expected = [f"{piece}-{n}" for piece in range(PIECES) for n in range(count)]
        self.assertEqual([record["offset"] for record in read], list(range(begin, begin + RECORDS)))
        self.assertEqual([record["value"] for record in read], expected)
        self.assertEqual(self.next_offset(log), begin + RECORDS, "no record is appended twice")
        driver.ask("close_producer", producer="p", timeout_ms=20_000)
        driver.ask("close")
        self.assertEqual(driver.end(), 0)

    def every_record_once_while_the_leader_is_killed(self, command):
        def disturb(allow, wait):
            leader = self.cluster.leader()
            allow(PIECES // 2)
            wait(PIECES // 10)
            leader.kill()
            wait(PIECES // 2 - 5)
            leader.restart()
            allow(PIECES)
            wait(PIECES)

        self.produce_while(command, "default", disturb)
        self.cluster.wait_ready()

    def every_record_once_while_all_nodes_are_restarted(self, command):
        def disturb(allow, wait):
            for number, node in enumerate(self.cluster.nodes):
                part = PIECES // 3
                allow(part * (number + 1))
                wait(part * number + 10)
                node.stop()
                self.assertEqual(node.process.returncode, 0)
                node.restart()
                self.cluster.wait_ready()
            allow(PIECES)

        self.produce_while(command, "default", disturb)

    def a_cursor_continues_where_it_was_committed(self, command):
        log = self.log(f"cursor-{self.id().rsplit('.')[-1].split('_')[1]}")
        first = self.driver(command)
        first.ask("producer", producer="p", log=log)
        first.ask("send_many", producer="p", prefix="v", count=1000, timeout=60)
        first.ask("consumer", consumer="c", log=log, start="earliest", cursor="reader")
        taken = first.ask("next", consumer="c", max=500, timeout_ms=60_000, timeout=90)["records"]
        self.assertEqual([record["value"] for record in taken], [f"v{n}" for n in range(500)])
        self.assertEqual(first.ask("commit", consumer="c")["next_offset"], 500)
        # These are taken and not committed.
        first.ask("next", consumer="c", max=10, timeout_ms=60_000, timeout=90)
        first.kill()
        second = self.driver(command)
        second.ask("consumer", consumer="c", log=log, start="latest", cursor="reader")
        taken = second.ask("next", consumer="c", max=500, timeout_ms=60_000, timeout=90)["records"]
        self.assertEqual([record["value"] for record in taken], [f"v{n}" for n in range(500, 1000)])
        self.assertEqual(second.ask("commit", consumer="c")["next_offset"], 1000)
        cursor = second.ask("get_cursor", log=log, cursor="reader")
        self.assertEqual((cursor["next_offset"], cursor["lag"]), (1000, 0))

    def an_older_process_is_fenced(self, command):
        log = self.log(f"fence-{self.id().rsplit('.')[-1].split('_')[1]}")
        old, new = self.driver(command), self.driver(command, nodes=(2, 1, 0))
        for driver in (old, new):
            answer = driver.ask("producer", producer="p", log=log, name="source")
            if driver is old:
                self.assertEqual(driver.ask("send", producer="p", value="old")["offset"], 0)
        self.assertEqual((answer["last_offset"], answer["records"]), (0, 1))
        self.assertEqual(old.start("send", producer="p", value="late").failure().kind, "fenced")
        self.assertEqual(new.ask("send", producer="p", value="new")["offset"], 1)
        for driver in (old, new):
            driver.ask("consumer", consumer="c", log=log, start="earliest", cursor="reader")
            taken = driver.ask("next", consumer="c", max=2, timeout_ms=60_000, timeout=90)["records"]
            self.assertEqual([record["value"] for record in taken], ["old", "new"])
        waiting = old.start("next", consumer="c", max=1, timeout_ms=60_000)
        self.assertEqual(waiting.failure(90).kind, "fenced")
        self.assertEqual(old.start("commit", consumer="c").failure().kind, "fenced")
        self.assertEqual(new.ask("commit", consumer="c")["next_offset"], 2)

    def a_record_is_read_from_every_node_at_once(self, command):
        driver = self.driver(command)
        begin = self.next_offset("default")
        driver.ask("producer", producer="p", log="default")
        with contextlib.ExitStack() as stack:
            readers = []
            for node in range(3):
                reader = self.driver(command, nodes=[node])
                stack.callback(reader.stop)
                reader.ask("consumer", consumer="c", log="default", start="offset", offset=begin)
                readers.append(reader)
            for n in range(10):
                self.assertEqual(driver.ask("send", producer="p", value=f"r{n}")["offset"], begin + n)
                for reader in readers:
                    [record] = reader.ask("next", consumer="c", max=1, timeout_ms=60_000, timeout=90)["records"]
                    self.assertEqual((record["offset"], record["value"]), (begin + n, f"r{n}"))

    def a_name_without_a_right_is_not_allowed(self, command):
        driver = self.driver(command, user="nobody")
        error = driver.start("producer", producer="p", log="default").failure(60)
        self.assertEqual((error.kind, error.code, error.outcome), ("not_allowed", "PERMISSION_DENIED", "none"))
        driver.ask("consumer", consumer="c", log="default", start="earliest")
        error = driver.start("next", consumer="c", max=1, timeout_ms=30_000).failure(60)
        self.assertEqual((error.kind, error.outcome), ("not_allowed", "none"))


SCENARIOS = [
    "a_name_without_a_right_is_not_allowed",
    "a_record_is_read_from_every_node_at_once",
    "a_cursor_continues_where_it_was_committed",
    "an_older_process_is_fenced",
    "every_record_once_while_the_leader_is_killed",
    "every_record_once_while_all_nodes_are_restarted",
]


def add(language, command):
    if not command:

        def missing(self):
            self.skipTest(f"NO DRIVER FOR {language.upper()}: DRIVER_{language.upper()} is not set")

        setattr(ThreeNodes, f"test_{language}", missing)
        return
    for scenario in SCENARIOS:
        run = lambda self, scenario=scenario: getattr(self, scenario)(command)  # noqa: E731
        setattr(ThreeNodes, f"test_{language}_{scenario}", run)


for _language, _command in drivers().items():
    add(_language, _command)

if __name__ == "__main__":
    unittest.main(verbosity=2)
