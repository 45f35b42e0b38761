"""What a client of seriatim.v1 can rely on, tested with the Python, the Go and the Java program and three nodes."""

import contextlib
import json
import re
import subprocess
import sys

import grpc
from cluster import CLIENTS, ENV, REPO, TIMEOUT, ClusterTest, Tail
from fake import Fails, FakeNode

from seriatim.v1 import log_service_pb2 as pb

NODES = range(3)


class Clients(ClusterTest):
    def succeeds(self, client, node, *args, stdin=None):
        """Returns the lines that a client prints; it must succeed."""
        done = self.cluster.run(client, node, *args, stdin=stdin)
        self.assertEqual((done.returncode, done.stderr), (0, ""), (client, args))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def fails(self, client, node, *args, user="root", stdin=None):
        """Returns what a client prints when it fails."""
        done = self.cluster.run(client, node, *args, user=user, stdin=stdin)
        self.assertEqual((done.returncode, done.stdout), (1, ""), (client, args))
        return done.stderr

    def next_offset(self):
        return self.cluster.stubs[0].GetLog(pb.GetLogRequest(), timeout=10).log.position.next_offset

    def test_every_node_lists_the_same_three_members_and_one_leader(self):
        addrs = {node.name: node.rpc_addr for node in self.cluster.nodes}
        for client in CLIENTS:
            lists = [self.succeeds(client, node, "servers") for node in NODES]
            self.assertEqual({s["id"]: s["rpc_addr"] for s in lists[0]}, addrs)
            for servers in lists:
                self.assertEqual([s["id"] for s in servers], [s["id"] for s in lists[0]])
                self.assertEqual([s["leader"] for s in servers].count(True), 1)
                self.assertTrue(all(s["voter"] for s in servers))

    def test_a_record_acknowledged_by_one_node_is_read_from_every_node_at_once(self):
        for client in CLIENTS:
            for node in NODES:
                [offset] = self.succeeds(client, node, "produce", f"{client} at {node}")
                seen = [self.succeeds(client, other, "get", str(offset)) for other in NODES]
                self.assertEqual(seen[0][0]["value"], f"{client} at {node}")
                self.assertEqual(seen, [seen[0]] * 3)

    def test_a_record_is_read_from_every_node_without_any_delay(self):
        for round_ in range(100):
            value = b"round %d" % round_
            stub = self.cluster.stubs[round_ % 3]
            offset = stub.Produce(pb.ProduceRequest(records=[pb.Record(value=value)]), timeout=10).offset
            for other in self.cluster.stubs:
                record = other.Consume(pb.ConsumeRequest(offset=offset), timeout=10).records[0]
                self.assertEqual((record.offset, record.value), (offset, value))

    def test_every_client_decodes_the_same_numbers(self):
        """protobuf-java once decoded offset and term with bit 63 set, in batches and in messages of one record."""
        begin = self.next_offset()
        self.succeeds("python", 0, "produce", *(f"value {n}" for n in range(300)))
        expected = self.succeeds("python", 0, "consume", "--from", str(begin))
        self.assertEqual([r["offset"] for r in expected], list(range(begin, begin + 300)))
        for client in CLIENTS:
            self.assertEqual(self.succeeds(client, 1, "consume", "--from", str(begin)), expected)
            self.assertEqual(self.succeeds(client, 2, "consume", "--from", str(begin), "--max-records", "1"), expected)
            self.assertEqual(self.succeeds(client, 0, "get", str(begin + 299)), expected[-1:])

    def test_a_tail_on_any_node_receives_records_produced_at_any_node(self):
        begin = str(self.next_offset())
        readers = [(client, node, n) for client in CLIENTS for node in NODES for n in ("0", "1")]
        tails = []
        for client, node, max_records in readers:
            command = self.cluster.command(client, node, "tail", "--from", begin, "--max-records", max_records)
            tails.append(Tail(command))
            self.addCleanup(tails[-1].stop)
        for client in CLIENTS:
            for node in NODES:
                [offset] = self.succeeds(client, node, "produce", f"{client} at {node}")
                for reader, tail in zip(readers, tails, strict=True):
                    record = json.loads(tail.line())
                    self.assertEqual((record["offset"], record["value"]), (offset, f"{client} at {node}"), reader)

    def test_a_tail_at_the_end_that_is_cut_before_its_first_record_loses_none(self):
        """A relay cuts the stream after its first message; the record is appended while there is none."""

        def cut(request, context):
            stream = self.cluster.stubs[1].ConsumeStream(request, timeout=TIMEOUT)
            message = next(stream)
            stream.cancel()
            yield message
            empty.append(not message.records)
            record = pb.Record(value=client.encode())
            self.cluster.stubs[0].Produce(pb.ProduceRequest(records=[record]), timeout=10)
            Fails(grpc.StatusCode.UNAVAILABLE).abort(context)

        def relay(request, context):
            stream = self.cluster.stubs[2].ConsumeStream(request, timeout=TIMEOUT)
            context.add_callback(stream.cancel)
            with contextlib.suppress(grpc.RpcError):
                yield from stream

        certs = self.cluster.site / "certs"
        for client in CLIENTS:
            empty = []
            node = FakeNode(certs, [cut, relay])
            self.addCleanup(node.stop)
            args = ["--addr", node.addr, "--certs", str(certs), "tail", "--from", "latest"]
            tail = Tail([*CLIENTS[client], *args])
            self.addCleanup(tail.stop)
            self.assertEqual((json.loads(tail.line())["value"], empty), (client, [True]))

    def test_a_batch_has_contiguous_offsets_and_keeps_keys_headers_types_and_empty_records(self):
        args = ["--key", "k", "--header", "a=1", "--header", "a=", "--type", "7", "first", "", "thïrd"]
        plain = {"type": 0, "key": None, "headers": []}
        full = {"type": 7, "key": "k", "headers": [["a", "1"], ["a", ""]]}
        for client in CLIENTS:
            offsets = self.succeeds(client, 1, "produce", *args)
            offsets += self.succeeds(client, 2, "produce", "")
            offsets += self.succeeds(client, 0, "produce", "--key", "", "empty key")
            self.assertEqual(offsets[:3], list(range(offsets[0], offsets[0] + 3)))
            expected = [full | {"value": value} for value in ("first", "", "thïrd")]
            expected += [plain | {"value": ""}, plain | {"value": "empty key", "key": ""}]
            for reader in CLIENTS:
                records = self.succeeds(reader, 0, "consume", "--from", str(offsets[0]))
                self.assertEqual([r["offset"] for r in records], offsets)
                self.assertTrue(all(r["term"] > 0 and r["append_time_us"] > 0 for r in records))
                self.assertEqual([{name: r[name] for name in full | {"value": 0}} for r in records], expected)

    def test_pipe_appends_each_line_as_a_record_in_order(self):
        lines = [f"line {n}" if n % 10 else "" for n in range(1000)]
        for client in CLIENTS:
            begin = self.next_offset()
            offsets = self.succeeds(client, 2, "pipe", stdin="\n".join(lines))  # The last line has no newline.
            self.assertEqual(offsets, list(range(begin, begin + len(lines))))
            for node in NODES:
                records = self.succeeds(client, node, "consume", "--from", str(begin), "--max-records", "300")
                self.assertEqual([r["value"] for r in records], lines)

    def test_an_unknown_common_name_may_not_produce_consume_or_tail(self):
        calls = [("produce", "x"), ("pipe",), ("get", "0"), ("consume",), ("tail", "--from", "0")]
        before = self.next_offset()
        for client in CLIENTS:
            for node in NODES:
                for call in calls:
                    error = self.fails(client, node, *call, user="nobody", stdin="x\n")
                    self.assertRegex(error, r"^error: PERMISSION_DENIED.*: nobody may not ")
        self.assertEqual(self.next_offset(), before)

    def test_a_reader_of_one_log_may_do_nothing_else(self):
        [offset] = self.succeeds("go", 0, "produce", "for guests")
        for client in CLIENTS:
            self.assertEqual(self.cluster.run(client, 1, "get", str(offset), user="guest").returncode, 0)
            error = self.fails(client, 1, "--log", "other", "get", "0", user="guest")
            self.assertRegex(error, r"^error: PERMISSION_DENIED \(NOT_ALLOWED\): guest may not consume log other")
            self.assertRegex(self.fails(client, 1, "produce", "x", user="guest"), "^error: PERMISSION_DENIED")

    def test_errors_contain_their_reason(self):
        past = str(self.next_offset() + 1000)
        calls = {
            ("get", past): r"OUT_OF_RANGE \(OFFSET_PAST_END\).*next_offset",
            ("consume", "--from", past): r"OUT_OF_RANGE \(OFFSET_PAST_END\)",
            ("tail", "--from", past): r"OUT_OF_RANGE \(OFFSET_PAST_END\)",
            ("--log", "nowhere", "produce", "x"): r"NOT_FOUND \(NO_SUCH_LOG\).*nowhere",
            ("--log", "no näme", "get", "0"): r"INVALID_ARGUMENT \(INVALID_REQUEST\).*no näme",
            ("--log", "nowhere", "pipe"): r"NOT_FOUND \(NO_SUCH_LOG\).*failed_request",
        }
        for client in CLIENTS:
            for call, pattern in calls.items():
                self.assertRegex(self.fails(client, 1, *call, stdin="x\n"), f"^error: {pattern}")

    def test_a_read_at_the_end_has_no_record(self):
        for client in CLIENTS:
            self.assertRegex(self.fails(client, 0, "get", str(self.next_offset())), "^error: there is no record at offset")

    def test_the_ten_line_client_of_the_readme_works(self):
        readme = (REPO / "clients/python/README.md").read_text()
        snippet = re.search(r"```python\n(.*?)```", readme, re.DOTALL).group(1)
        self.assertEqual(len([line for line in snippet.splitlines() if line]), 10)
        for node in self.cluster.nodes:
            code = snippet.replace("localhost:8400", node.rpc_addr.replace("127.0.0.1", "localhost"))
            env = ENV | {"PYTHONPATH": str(REPO / "clients/python")}
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=self.cluster.site,
                env=env,
                capture_output=True,
                timeout=TIMEOUT,
                text=True,
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            offset = done.stdout.splitlines()[0].removeprefix("appended at offset ")
            self.assertEqual(done.stdout.splitlines()[-1], f"{offset} hello")
