"""What the Python, the Go and the Java program do with an error. They know none of the reasons."""

import json
import pathlib
import subprocess
import tempfile
import time
import unittest

import grpc
from cluster import CLIENTS, ENV, TIMEOUT
from fake import Fails, FakeNode, certificates

from seriatim.v1 import log_service_pb2 as pb

Code = grpc.StatusCode
APPENDED = pb.ProduceResponse(offset=41, count=1, log_id="id-1")


def keys(outcome, retry):
    return {"outcome": outcome, "retry": retry}


def message(offset, *values, next_offset=None):
    """A message with records from `offset` on, after which reading continues at the next one or at `next_offset`."""
    records = [pb.Record(offset=offset + i, value=value.encode()) for i, value in enumerate(values)]
    end = offset + len(values)
    return pb.ConsumeResponse(
        records=records, next_offset=end, log_id="id-1", resume_offset=end if next_offset is None else next_offset
    )


class Errors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certs = certificates(pathlib.Path(folder.name))

    def run_client(self, client, answers, *args):
        """Runs a client with a server for each list of answers. Returns what it did, and the servers."""
        servers = [FakeNode(self.certs, list_) for list_ in answers]
        try:
            addrs = ",".join(server.addr for server in servers)
            command = [*CLIENTS[client], "--addr", addrs, "--certs", str(self.certs), *args]
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, text=True, env=ENV)
        finally:
            for server in servers:
                server.stop()
        self.assertEqual([server.answers for server in servers], [[] for _ in servers], (client, done))
        return done, servers

    def appends(self, answers, requests):
        """A batch is appended after each server got so many requests, all of them the same."""
        for client in CLIENTS:
            with self.subTest(client=client):
                done, servers = self.run_client(client, answers, "produce", "x")
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "41\n", ""))
                self.assertEqual([len(server.requests) for server in servers], requests)
                self.assertEqual({r.records[0].value for s in servers for r in s.requests}, {b"x"})

    def gives_up(self, fails, says):
        """A batch is sent once, and the client prints the error."""
        for client in CLIENTS:
            with self.subTest(client=client, fails=fails):
                done, servers = self.run_client(client, [[fails], []], "produce", "x")
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn("it says", done.stderr)
                self.assertIn(f"[{says}]", done.stderr)
                self.assertEqual([len(server.requests) for server in servers], [1, 0])

    def test_a_request_is_sent_to_the_same_node_after_the_time_in_retry_info(self):
        for outcome, code in (("none", Code.RESOURCE_EXHAUSTED), ("unknown", Code.UNAVAILABLE), ("done", Code.ABORTED)):
            fails = Fails(code, keys(outcome, "same"), pause_seconds=0.4)
            begin = time.monotonic()
            self.appends([[fails, fails, APPENDED], []], [3, 0])
            self.assertGreaterEqual(time.monotonic() - begin, 2 * 0.4 * len(CLIENTS))

    def test_a_request_is_sent_to_another_node_at_once(self):
        # The pause is not waited for, because it is longer than a call may take.
        fails = Fails(Code.DATA_LOSS, keys("none", "elsewhere"), pause_seconds=3600)
        self.appends([[fails], [APPENDED]], [1, 1])

    def test_all_nodes_are_asked_in_turn(self):
        fails = Fails(Code.UNAVAILABLE, keys("none", "elsewhere"))
        self.appends([[fails, fails], [fails, fails], [fails, APPENDED]], [2, 2, 2])

    def test_a_client_gives_up_after_a_pause_that_is_too_long(self):
        self.gives_up(Fails(Code.UNAVAILABLE, keys("none", "same"), pause_seconds=3600), "outcome none, retry same")

    def test_an_error_that_allows_no_repetition_is_printed(self):
        for code in (Code.UNAVAILABLE, Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED):
            self.gives_up(Fails(code, keys("none", "no"), pause_seconds=0.1), "outcome none, retry no")
        self.gives_up(Fails(Code.RESOURCE_EXHAUSTED, keys("none", "later")), "outcome none, retry later")
        self.gives_up(Fails(Code.UNAVAILABLE, keys("none", "a new word")), "outcome none, retry a new word")

    def test_a_known_reason_without_keys_does_not_count(self):
        # LEADER_CHANGED has outcome none and retry same; an error without the keys is "unknown" and "no".
        self.gives_up(Fails(Code.UNAVAILABLE, {}, "LEADER_CHANGED", 0.1), "outcome unknown, retry no")

    def test_keys_win_over_the_reason(self):
        fails = Fails(Code.INVALID_ARGUMENT, keys("none", "same"), "INVALID_REQUEST", 0.1)
        self.appends([[fails, APPENDED], []], [2, 0])

    def test_an_error_of_grpc_itself_is_not_repeated_for_an_append(self):
        unknown = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.RESOURCE_EXHAUSTED, Code.INTERNAL)
        for code in unknown:
            self.gives_up(Fails(code, pause_seconds=0.1), "outcome unknown, retry no")
        for code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED):
            self.gives_up(Fails(code), "outcome none, retry no")

    def test_a_read_is_repeated_if_the_connection_broke(self):
        for client in CLIENTS:
            with self.subTest(client=client):
                done, _ = self.run_client(client, [[Fails(Code.UNAVAILABLE)], [message(7, "seven")]], "get", "7")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(json.loads(done.stdout)["value"], "seven")

    def test_a_tail_at_the_end_that_is_cut_before_its_first_record_loses_none(self):
        for broken in (Fails(Code.UNAVAILABLE), Fails(Code.ABORTED, keys("none", "elsewhere"))):
            # No records yet: the message says only where to resume.
            broken.messages = (message(42),)
            ends = Fails(Code.NOT_FOUND, keys("none", "no"), messages=(message(42, "a", "b"), message(44)))
            for client in CLIENTS:
                with self.subTest(client=client):
                    done, servers = self.run_client(client, [[broken], [ends]], "tail", "--from", "latest")
                    self.assertEqual([json.loads(line)["offset"] for line in done.stdout.splitlines()], [42, 43])
                    [first], [second] = servers[0].requests, servers[1].requests
                    self.assertEqual((first.start, first.HasField("log_id")), (pb.START_LATEST, False))
                    self.assertEqual((second.start, second.offset, second.log_id), (pb.START_OFFSET, 42, "id-1"))

    def test_a_tail_that_fails_after_each_first_message_ends(self):
        # The first message was taken for a success, so that a tail of damaged records asked in a loop for ever.
        for client in CLIENTS:
            with self.subTest(client=client):
                fails = Fails(Code.ABORTED, keys("none", "same"), pause_seconds=4, messages=(message(42),))
                done, _ = self.run_client(client, [[fails, fails, fails]], "tail", "--from", "42")
                self.assertEqual(done.returncode, 1)
                self.assertIn("[outcome none, retry same]", done.stderr)

    def test_a_tail_that_never_had_a_message_repeats_its_request(self):
        for client in CLIENTS:
            with self.subTest(client=client):
                ends = Fails(Code.NOT_FOUND, keys("none", "no"))
                done, servers = self.run_client(client, [[Fails(Code.UNAVAILABLE), ends]], "tail", "--from", "latest")
                self.assertIn("NOT_FOUND", done.stderr)
                self.assertEqual([request.start for request in servers[0].requests], [pb.START_LATEST] * 2)

    def test_a_consumer_resumes_at_resume_offset_with_the_log_id_first_seen(self):
        for client in CLIENTS:
            with self.subTest(client=client):
                # The offsets 3 to 9 contain no records for clients.
                breaks = Fails(Code.UNAVAILABLE, messages=(message(0, "a"), message(1, "b", "c", next_offset=10)))
                other = message(10, "d")
                other.log_id = "id-2"
                answers = [[breaks, Fails(Code.UNAVAILABLE, messages=(other,)), [message(11, "e")]]]
                done, servers = self.run_client(client, answers, "consume", "--from", "0")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual([json.loads(line)["value"] for line in done.stdout.splitlines()], list("abcde"))
                seen = [(r.offset, r.log_id) for r in servers[0].requests]
                self.assertEqual(seen, [(0, ""), (10, "id-1"), (11, "id-1")])
                self.assertTrue(all(r.start == pb.START_OFFSET and r.stop_at_end for r in servers[0].requests))
