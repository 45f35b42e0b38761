"""The behaviours of clients/README.md as scripts. Each fails for a library that lacks the behaviour.

A script gets a `Case`: the fake cluster, and the driver of a library. To wait, it waits for a condition of the cluster or for an
answer. A time that a script measures is one that the behaviour is about, such as a pause.
"""

import time
from random import Random

from driver import TIMEOUT, Driver, Failed
from fake import Answer, Break, CursorState, FakeCluster, Refuse, Refused, Silent, pb, record_bytes

# By name.
CASES = {}
# Short times, so that scripts are fast. Those of the README are tested where they matter.
OPTIONS = {
    "attempt_ms": 5000,
    "operation_ms": 15_000,
    "connect_ms": 1000,
    "backoff_min_ms": 50,
    "backoff_max_ms": 400,
}
# The slack of a measured time on a busy machine.
SLACK = 1.0


def case(run):
    CASES[run.__name__] = run
    return run


class Case:
    """What a script needs."""

    def __init__(self, command, stack):
        self.command, self.stack = command, stack
        self.cluster = stack.enter_context(FakeCluster())
        self.log = self.cluster.log
        self.driver = self.new_driver()

    def new_driver(self):
        return self.stack.enter_context(Driver(self.command))

    def connect(self, nodes=(0, 1, 2), **options):
        addrs = [self.cluster.nodes[node].addr for node in nodes]
        self.driver.ask("connect", addrs=addrs, options=OPTIONS | options)

    def producer(self, handle="p", log="default", **fields):
        return self.driver.ask("producer", producer=handle, log=log, **fields)

    def send(self, value, producer="p", **fields):
        return self.driver.start("send", producer=producer, value=value, **fields)

    def send_many(self, count, prefix="v", producer="p"):
        return self.driver.start("send_many", producer=producer, prefix=prefix, count=count)

    def consumer(self, handle="c", log="default", start="earliest", **fields):
        return self.driver.ask("consumer", consumer=handle, log=log, start=start, **fields)

    def next(self, most, handle="c", timeout=TIMEOUT):
        """Returns the values of the next records: `most` of them, unless fewer come in time."""
        answer = self.start_next(most, handle, timeout).result(timeout + TIMEOUT)
        return [record["value"] for record in answer["records"]]

    def start_next(self, most, handle="c", timeout=TIMEOUT):
        return self.driver.start("next", consumer=handle, max=most, timeout_ms=int(timeout * 1000))

    def append(self, *values):
        self.cluster.change(lambda log: log.append(*values))

    def get_cursor(self, name="k"):
        return self.driver.start("get_cursor", log="default", cursor=name)

    def has_cursor(self, name="k", next_offset=0):
        self.log.append(*values(10))
        self.log.cursors[name] = CursorState(next_offset)

    def requests(self):
        """Returns the requests of all ProduceStream calls that were received."""
        return [seen.request for seen in self.cluster.requests("ProduceStream")]

    def stays(self, condition, seconds=0.5):
        """Returns whether a condition stays true for a while, because what must not happen has no event of its own."""
        with self.cluster.changed:
            return not self.cluster.changed.wait_for(lambda: not condition(), seconds)

    def check(self):
        """What holds after every script."""
        assert not self.log.violations, self.log.violations


def equal(found, expected, what=""):
    assert found == expected, f"{what}\n  found    {found!r}\n  expected {expected!r}"


def values(count, prefix="v"):
    return [f"{prefix}{n}" for n in range(count)]


def gaps(seen):
    """Returns the times between requests."""
    return [after.time - before.time for before, after in zip(seen, seen[1:])]


def refusal(code="UNAVAILABLE", reason="INVENTED_BY_THE_TEST", outcome="none", retry="elsewhere", applied=False, **more):
    """Answers with an error. The reason is one that no library knows."""
    return Refuse(Refused(code, reason, outcome, retry, **more), applied=applied)


def same_requests(t):
    """Checks that each sequence always has the same records."""
    by_sequence = {}
    for request in t.requests():
        records = by_sequence.setdefault((request.producer_id, request.sequence), list(request.records))
        equal(list(request.records), records, f"the records of sequence {request.sequence}")


def plain(code, applied=False):
    """Answers with a status without ErrorInfo."""
    return Refuse(Refused(code), applied=applied)


# The statuses without ErrorInfo that gRPC makes if a connection breaks.
BROKEN = ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED")


# --- Connections ----------------------------------------------------------------------------------------------------------------


@case
def connects_when_it_is_first_used(t):
    t.connect()
    equal([node.proxy.accepted for node in t.cluster.nodes], [0, 0, 0], "connections before the first use")
    t.driver.ask("ready", timeout_ms=20_000)
    assert sum(node.proxy.accepted for node in t.cluster.nodes) > 0


@case
def ready_waits_until_a_node_answers(t):
    for node in t.cluster.nodes:
        node.proxy.down()
    t.connect()
    error = t.driver.start("ready", timeout_ms=500).failure()
    assert error.kind in ("timeout", "unavailable"), error
    pending = t.driver.start("ready", timeout_ms=25_000)
    t.cluster.nodes[1].proxy.up()
    pending.result()


@case
def uses_members_that_were_not_given(t):
    t.cluster.leader = None
    t.connect(nodes=[0])
    t.producer()
    equal(t.send("a").result()["offset"], 0)
    t.cluster.nodes[0].proxy.down()
    equal(t.send("b").result()["offset"], 1)
    equal(t.log.values(), ["a", "b"])


@case
def never_forgets_the_given_addresses(t):
    """The second address is given and not listed, the third is listed and does not answer."""
    t.cluster.leader = None
    first, second, third = t.cluster.nodes
    t.cluster.members = [first.addr, third.addr]
    third.proxy.down()
    t.connect(nodes=[0, 1])
    t.producer()
    # It has seen the list.
    t.cluster.wait_requests("GetServers", 1)
    equal(t.send("a").result()["offset"], 0)
    first.proxy.down()
    equal(t.send("b").result()["offset"], 1)
    second.proxy.break_connections()
    equal(t.send("c").result()["offset"], 2)


@case
def a_producer_uses_the_leader_of_get_servers(t):
    t.cluster.leader = 1
    t.connect(nodes=[0])
    t.producer()
    t.send("a").result()
    equal([seen.node for seen in t.cluster.requests("ProduceStream")], [1])


@case
def a_producer_uses_the_leader_that_an_error_names(t):
    t.connect()
    t.producer()
    t.send("a").result()
    t.cluster.leader = 2
    leader = {"leader": t.cluster.addrs[2]}
    t.cluster.fault("ProduceStream", refusal(retry="same", metadata=leader))
    t.send("b").result()
    equal([seen.node for seen in t.cluster.requests("ProduceStream")], [0, 0, 2])


@case
def a_consumer_stays_at_its_node_until_it_fails(t):
    t.append("a")
    t.connect()
    t.consumer()
    equal(t.next(1), ["a"])
    [first] = t.cluster.requests("ConsumeStream")
    t.cluster.leader = (first.node + 1) % 3
    t.append("b")
    equal(t.next(1), ["b"])
    equal(len(t.cluster.requests("ConsumeStream")), 1, "streams")
    t.cluster.nodes[first.node].proxy.down()
    second = t.cluster.wait("a stream at another node", lambda: t.cluster.requests("ConsumeStream")[1:])[0]
    assert second.node != first.node
    t.append("c")
    equal(t.next(1), ["c"])


@case
def another_cluster_fails_the_client(t):
    t.cluster.leader = None
    t.connect(nodes=[0])
    t.producer()
    t.send("a").result()
    used = t.cluster.requests("ProduceStream")[0].node
    for node in t.cluster.nodes:
        node.cluster_id = "another-cluster"
    t.cluster.nodes[used].proxy.break_connections()
    error = t.send("b").failure()
    equal((error.kind, error.reason), ("mismatch", "CLUSTER_CHANGED"))


@case
def detects_a_dead_connection_by_pings(t):
    """The connection of a producer without work. A ping is due after 20 s."""
    t.connect()
    t.producer()
    t.send("a").result()
    began = time.monotonic()
    pings = lambda: [at for node in t.cluster.nodes for at in node.proxy.pings if at > began + 5]  # noqa: E731
    t.cluster.wait("a ping", pings, 26)


@case
def closes_everything(t):
    t.append("a")
    t.connect()
    t.producer()
    t.consumer()
    t.send("b").result()
    waiting = t.start_next(10)
    t.driver.ask("close")
    waiting.wait()
    t.cluster.wait("all connections end", lambda: not any(node.proxy.pairs for node in t.cluster.nodes))
    equal(t.driver.end(), 0, "exit code at the end of the input")


# --- Errors and retries ---------------------------------------------------------------------------------------------------------


@case
def retry_elsewhere_goes_to_the_next_node_without_a_pause(t):
    t.log.append("a")
    t.connect(backoff_min_ms=5000, backoff_max_ms=5000)
    t.driver.ask("ready", timeout_ms=20_000)
    t.cluster.fault("ConsumeStream", refusal(retry="elsewhere"), times=2)
    began = time.monotonic()
    t.consumer()
    equal(t.next(1), ["a"])
    assert time.monotonic() - began < 2 + SLACK, "it paused before it asked another node"
    equal(len({seen.node for seen in t.cluster.requests("ConsumeStream")}), 3, "it asks each node once")


@case
def retry_elsewhere_pauses_after_all_nodes_have_failed(t):
    t.has_cursor()
    t.connect(backoff_min_ms=1000, backoff_max_ms=1000)
    t.driver.ask("ready", timeout_ms=20_000)
    t.cluster.fault("GetCursor", refusal(retry="elsewhere"), times=4)
    t.get_cursor().result()
    seen = t.cluster.requests("GetCursor")
    equal(len({s.node for s in seen[:3]}), 3, "nodes of the first three attempts")
    pauses = gaps(seen)
    assert pauses[0] < 0.4 and pauses[1] < 0.4 and pauses[2] >= 0.45 and pauses[3] < 0.4, pauses


@case
def retry_same_waits_as_retry_info_says_and_stays_at_the_node(t):
    t.has_cursor()
    t.connect()
    t.driver.ask("ready", timeout_ms=20_000)
    t.cluster.fault("GetCursor", refusal(retry="same", retry_ms=700), times=2)
    t.get_cursor().result()
    seen = t.cluster.requests("GetCursor")
    equal(len({s.node for s in seen}), 1, "nodes")
    assert all(0.69 <= pause < 0.7 + SLACK for pause in gaps(seen)), gaps(seen)


@case
def retry_later_waits_at_least_as_retry_info_says(t):
    t.has_cursor()
    t.connect()
    t.cluster.fault("GetCursor", refusal("RESOURCE_EXHAUSTED", retry="later", retry_ms=900))
    t.get_cursor().result()
    [pause] = gaps(t.cluster.requests("GetCursor"))
    assert 0.89 <= pause < 0.9 + SLACK, pause


@case
def retry_no_returns_the_error_at_once(t):
    t.connect()
    t.cluster.fault("GetCursor", refusal("FAILED_PRECONDITION", retry="no", metadata={"log": "x"}, message="it says"))
    error = t.get_cursor().failure()
    equal((error.code, error.reason, error.outcome, error.retry),
          ("FAILED_PRECONDITION", "INVENTED_BY_THE_TEST", "none", "no"))
    equal((error.kind, error.message, error.metadata["log"]), ("other", "it says", "x"))
    equal(len(t.cluster.requests("GetCursor")), 1, "attempts")


@case
def pauses_double_with_a_random_part(t):
    t.has_cursor()
    t.connect(backoff_min_ms=100, backoff_max_ms=800)
    t.cluster.fault("GetCursor", refusal(retry="same"), times=6)
    t.get_cursor().result()
    pauses = gaps(t.cluster.requests("GetCursor"))
    for pause, nominal in zip(pauses, (0.1, 0.2, 0.4, 0.8, 0.8, 0.8), strict=True):
        assert 0.49 * nominal <= pause <= 1.5 * nominal + SLACK / 2, pauses
    # They begin anew.
    t.cluster.fault("GetCursor", refusal(retry="same"), times=1)
    t.get_cursor().result()
    assert gaps(t.cluster.requests("GetCursor"))[-1] < 0.15 + SLACK / 4, "a new operation begins with the first pause"


@case
def an_attempt_without_an_answer_is_repeated_elsewhere(t):
    t.has_cursor(next_offset=7)
    t.connect(attempt_ms=1000)
    t.driver.ask("ready", timeout_ms=20_000)
    t.cluster.fault("GetCursor", Silent())
    began = time.monotonic()
    equal(t.get_cursor().result()["next_offset"], 7)
    assert 0.9 < time.monotonic() - began < 1 + 2 * SLACK
    first, second = t.cluster.requests("GetCursor")
    assert first.node != second.node


@case
def an_operation_ends_after_its_time(t):
    t.connect(operation_ms=1500)
    t.cluster.fault("GetCursor", refusal(retry="elsewhere"), times=float("inf"))
    began = time.monotonic()
    error = t.get_cursor().failure()
    assert error.kind in ("timeout", "unavailable"), error
    assert 0.5 < time.monotonic() - began < 1.5 + 2 * SLACK
    assert len(t.cluster.requests("GetCursor")) > 3


@case
def an_error_without_the_keys_is_unknown_and_not_retried(t):
    t.connect()
    t.cluster.fault("GetCursor", Refuse(Refused("INTERNAL", "OF_A_FOREIGN_SERVER")))
    error = t.get_cursor().failure()
    equal((error.kind, error.outcome, error.retry), ("outcome_unknown", "unknown", "no"))
    # Values of a newer server count as those that promise least.
    t.cluster.fault("GetCursor", refusal("ABORTED", outcome="perhaps", retry="sometimes"))
    error = t.get_cursor().failure()
    equal((error.kind, error.outcome, error.retry), ("outcome_unknown", "unknown", "no"))
    for code, outcome, kind in (
        ("PERMISSION_DENIED", "none", "not_allowed"),
        ("UNAUTHENTICATED", "none", "not_allowed"),
        ("UNIMPLEMENTED", "none", "invalid"),
        ("ABORTED", "unknown", "outcome_unknown"),
        ("RESOURCE_EXHAUSTED", "unknown", "outcome_unknown"),
    ):
        t.cluster.fault("GetCursor", plain(code))
        error = t.get_cursor().failure()
        equal((error.code, error.reason, error.outcome, error.kind), (code, "", outcome, kind))


@case
def nothing_is_done_by_reading(t):
    t.append("a")
    t.connect(attempt_ms=500, operation_ms=1500)
    t.consumer(max_silence_ms=1500)
    equal(t.next(1), ["a"])
    t.cluster.fault("GetCursor", Silent(), times=float("inf"))
    t.cluster.fault("ConsumeStream", Break(), times=float("inf"))
    for node in t.cluster.nodes:
        node.proxy.break_connections()
    for pending in (t.get_cursor(), t.start_next(1)):
        error = pending.failure()
        equal(error.outcome, "none", error)
        assert error.kind in ("timeout", "unavailable"), error


@case
def a_broken_connection_is_retried_at_the_next_node(t):
    t.has_cursor(next_offset=7)
    t.connect()
    t.driver.ask("ready", timeout_ms=20_000)
    t.cluster.fault("GetCursor", Break(), times=1)
    t.cluster.fault("GetCursor", plain("UNAVAILABLE"), times=1)
    equal(t.get_cursor().result()["next_offset"], 7)
    nodes = [seen.node for seen in t.cluster.requests("GetCursor")]
    assert nodes[0] != nodes[1] and nodes[1] != nodes[2], nodes


@case
def a_call_with_a_status_of_grpc_itself_is_retried_at_the_next_node(t):
    t.has_cursor(next_offset=7)
    t.connect()
    t.driver.ask("ready", timeout_ms=20_000)

    def check(method, code, call):
        t.cluster.fault(method, plain(code, applied=True))
        before = len(t.cluster.requests(method))
        call()
        nodes = [seen.node for seen in t.cluster.requests(method)[before:]]
        assert len(nodes) == 2 and nodes[0] != nodes[1], (method, code, nodes)

    for code in BROKEN:
        check("GetCursor", code, lambda: equal(t.get_cursor().result()["next_offset"], 7))
        check("InitProducer", code, lambda: t.producer(f"p{code}"))
        check("AcquireCursor", code, lambda: t.consumer(f"c{code}", cursor=f"k{code}"))
        equal(t.next(1, f"c{code}"), ["v0"])
        check("CommitCursor", code, lambda: t.driver.ask("commit", consumer=f"c{code}"))
        equal((t.log.cursors[f"k{code}"].next_offset, len(t.log.producers)), (1, BROKEN.index(code) + 1))


@case
def a_stream_with_a_status_of_grpc_itself_is_opened_again(t):
    t.connect()
    t.producer()
    t.consumer()
    sent = 0
    for code in BROKEN:
        for applied in (True, False):
            t.cluster.fault("ProduceStream", plain(code, applied))
            before = len(t.cluster.requests("ProduceStream"))
            answer = t.send(f"v{sent}").result()
            equal((answer["offset"], answer["duplicate"]), (sent, applied), code)
            nodes = [seen.node for seen in t.cluster.requests("ProduceStream")[before:]]
            assert len(nodes) == 2 and nodes[0] != nodes[1], (code, nodes)
            sent += 1
        equal(t.next(2), values(sent)[-2:])
        # In the middle of a stream, and at its beginning.
        t.cluster.fault("ConsumeStream.message", plain(code))
        t.cluster.fault("ConsumeStream", plain(code))
        t.append(f"v{sent}")
        sent += 1
        equal(t.next(1), values(sent)[-1:])
    equal(t.log.values(), values(sent))


@case
def malformed_details_count_as_missing(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", Refuse(Refused("UNAVAILABLE", trailer=b"\xff\x01\x02"), applied=True))
    equal(t.send("a").result()["duplicate"], True)
    t.cluster.fault("GetCursor", Refuse(Refused("PERMISSION_DENIED", trailer=b"\xff\x01\x02")))
    error = t.get_cursor().failure()
    equal((error.kind, error.reason, error.outcome), ("not_allowed", "", "none"))


@case
def errors_have_kinds(t):
    t.connect()
    for code, reason, outcome, kind in (
        ("NOT_FOUND", "NO_SUCH_LOG", "none", "not_found"),
        ("NOT_FOUND", "LOG_DELETED", "none", "not_found"),
        ("NOT_FOUND", "NO_SUCH_PRODUCER", "none", "not_found"),
        ("NOT_FOUND", "NO_SUCH_CURSOR", "none", "not_found"),
        ("FAILED_PRECONDITION", "EXPECTED_OFFSET_MISMATCH", "none", "mismatch"),
        ("FAILED_PRECONDITION", "REVISION_MISMATCH", "none", "mismatch"),
        ("FAILED_PRECONDITION", "EPOCH_MISMATCH", "none", "mismatch"),
        ("FAILED_PRECONDITION", "LOG_ID_MISMATCH", "none", "mismatch"),
        ("FAILED_PRECONDITION", "CURSOR_BEHIND", "none", "mismatch"),
        ("FAILED_PRECONDITION", "PRODUCER_FENCED", "unknown", "fenced"),
        ("FAILED_PRECONDITION", "CURSOR_FENCED", "none", "fenced"),
        ("INVALID_ARGUMENT", "RECORD_TOO_LARGE", "none", "too_large"),
        ("INVALID_ARGUMENT", "REQUEST_TOO_LARGE", "none", "too_large"),
        ("OUT_OF_RANGE", "OFFSET_TRIMMED", "none", "trimmed"),
        ("OUT_OF_RANGE", "OFFSET_PAST_END", "none", "past_end"),
        ("DATA_LOSS", "RECORD_DAMAGED", "none", "data_loss"),
        ("UNKNOWN", "NEW_REASON", "unknown", "outcome_unknown"),
        ("PERMISSION_DENIED", "NEW_REASON", "none", "not_allowed"),
        ("UNAUTHENTICATED", "NEW_REASON", "none", "not_allowed"),
        ("UNAVAILABLE", "NEW_REASON", "none", "unavailable"),
        ("RESOURCE_EXHAUSTED", "NEW_REASON", "none", "exhausted"),
        ("INVALID_ARGUMENT", "NEW_REASON", "none", "invalid"),
        ("UNIMPLEMENTED", "NEW_REASON", "none", "invalid"),
        ("DEADLINE_EXCEEDED", "NEW_REASON", "none", "timeout"),
        ("CANCELLED", "NEW_REASON", "none", "cancelled"),
        ("NOT_FOUND", "NEW_REASON", "none", "not_found"),
        ("OUT_OF_RANGE", "NEW_REASON", "none", "past_end"),
        ("DATA_LOSS", "NEW_REASON", "none", "data_loss"),
        ("ABORTED", "NEW_REASON", "none", "other"),
    ):
        t.cluster.fault("GetCursor", refusal(code, reason, outcome, "no"))
        error = t.get_cursor().failure()
        equal((error.code, error.reason, error.outcome, error.kind), (code, reason, outcome, kind))


@case
def the_outcome_stays_unknown_after_an_attempt_that_was_unknown(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", Break(applied=True), times=1)
    t.cluster.fault("ProduceStream", refusal("PERMISSION_DENIED", "NOT_ALLOWED", "none", "no"))
    error = t.send("a").failure()
    equal((error.code, error.reason, error.outcome), ("PERMISSION_DENIED", "NOT_ALLOWED", "unknown"))
    equal(error.kind, "outcome_unknown")
    equal(t.log.values(), ["a"])


@case
def the_outcome_is_none_if_that_of_every_attempt_was(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", refusal(retry="elsewhere"), times=1)
    t.cluster.fault("ProduceStream", refusal(retry="same"), times=1)
    t.cluster.fault("ProduceStream", refusal("PERMISSION_DENIED", "NOT_ALLOWED", "none", "no"))
    error = t.send("a").failure()
    equal((error.reason, error.outcome, error.kind), ("NOT_ALLOWED", "none", "not_allowed"))


@case
def the_outcome_done_is_a_success(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", refusal(outcome="done", retry="same", applied=True))
    answer = t.send("a").result()
    equal((answer["offset"], answer["duplicate"]), (0, True))
    t.cluster.fault("ProduceStream", refusal("FAILED_PRECONDITION", "SEQUENCE_TOO_OLD", "done", "no", applied=True))
    equal(t.send("b").result()["offset"], None)
    equal(t.send("c").result()["offset"], 2)
    equal(t.log.values(), ["a", "b", "c"])


@case
def a_request_that_was_done_stays_done(t):
    """A later attempt fails. The record is acknowledged, and not sent under another number."""
    done = refusal(outcome="done", retry="same", applied=True)
    t.connect()
    t.producer("p")
    t.cluster.fault("ProduceStream", done)
    t.cluster.fault("ProduceStream", refusal("PERMISSION_DENIED", "NOT_ALLOWED", "none", "no"))
    equal(t.send("a", "p").result()["offset"], None)
    equal(t.send("b", "p").failure().reason, "NOT_ALLOWED")
    t.producer("q")
    t.cluster.fault("ProduceStream", done)
    t.cluster.fault("ProduceStream", refusal("FAILED_PRECONDITION", "PRODUCER_UNKNOWN", "unknown", "no"))
    equal(t.send("c", "q").result()["offset"], None)
    equal(t.log.values(), ["a", "c"])


# --- Producer -------------------------------------------------------------------------------------------------------------------


@case
def sends_in_order_and_returns_offsets(t):
    t.connect()
    t.producer()
    sent = [t.send(value, key=value, headers=[["name", "x\xff"]], type=7) for value in values(20)]
    equal([pending.result()["offset"] for pending in sent], list(range(20)))
    answer = t.send_many(3000, prefix="w").result()
    equal((answer["first_offset"], answer["last_offset"], answer["duplicates"]), (20, 3019, 0))
    equal(t.log.values(), values(20) + values(3000, "w"))
    first = t.log.records[0]
    equal((first.key, first.headers[0].name, first.headers[0].value, first.type), (b"v0", "name", b"x\xff", 7))
    assert not t.log.records[20].HasField("key"), "an absent key differs from an empty one"


@case
def an_answer_that_is_lost_does_not_append_twice(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", Break(applied=True))
    answer = t.send("a").result()
    equal((answer["offset"], answer["duplicate"]), (0, True))
    equal(t.send("b").result()["duplicate"], False)
    equal(t.log.values(), ["a", "b"])


@case
def a_request_that_is_lost_is_sent_again(t):
    t.connect()
    t.producer()
    t.cluster.fault("ProduceStream", Break(applied=False))
    answer = t.send("a").result()
    equal((answer["offset"], answer["duplicate"]), (0, False))
    equal(t.log.values(), ["a"])


@case
def an_idle_producer_sends_at_once_and_a_busy_one_gathers_1000_records(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    first = t.send("a")
    t.cluster.wait_requests("ProduceStream", 1)
    many = t.send_many(1500)
    # A thousand are enough. The others wait for an answer.
    t.cluster.wait_requests("ProduceStream", 2)
    assert t.stays(lambda: len(t.requests()) == 2), "it did not gather"
    t.cluster.release("ProduceStream")
    first.result()
    many.result()
    equal([len(request.records) for request in t.requests()], [1, 1000, 500])
    equal(t.log.values(), ["a", *values(1500)])


@case
def a_busy_producer_gathers_512_kib(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    sent = [t.send("a")]
    t.cluster.wait_requests("ProduceStream", 1)
    sent += [t.send("x" * 100_000) for _ in range(8)]
    t.cluster.wait_requests("ProduceStream", 2)
    t.cluster.release("ProduceStream")
    for pending in sent:
        pending.result()
    sizes = [sum(map(record_bytes, request.records)) for request in t.requests()]
    assert 400_000 <= sizes[1] <= (512 << 10) + 100_000, sizes


@case
def at_most_32_requests_are_unanswered(t):
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    many = t.send_many(100)
    t.cluster.wait_requests("ProduceStream", 32)
    assert t.stays(lambda: len(t.requests()) == 32), "more than 32"
    t.cluster.release("ProduceStream")
    many.result()
    assert t.cluster.max_unanswered <= 32
    equal(t.log.values(), values(100))


@case
def at_most_4_mib_are_unanswered(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    sent = [t.send("x" * 100_000) for _ in range(70)]
    t.cluster.wait("3 MiB are sent", lambda: t.cluster.max_unanswered_bytes >= 3 << 20)
    assert t.stays(lambda: t.cluster.max_unanswered_bytes <= (4 << 20) + 100_000), t.cluster.max_unanswered_bytes
    t.cluster.release("ProduceStream")
    for pending in sent:
        pending.result()
    assert t.cluster.max_unanswered_bytes <= (4 << 20) + 100_000, t.cluster.max_unanswered_bytes


@case
def unanswered_requests_are_sent_again_as_they_were(t):
    t.connect()
    t.producer(batch_records=10)
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", Break(applied=True), skip=5)
    t.cluster.fault("ProduceStream", refusal(retry="same"), skip=14)
    t.cluster.fault("ProduceStream", Break(applied=False), skip=25)
    many = t.send_many(305)
    t.cluster.wait_requests("ProduceStream", 10)
    t.cluster.release("ProduceStream")
    answer = many.result()
    equal((answer["first_offset"], answer["last_offset"]), (0, 304))
    equal(t.log.values(), values(305))
    same_requests(t)


@case
def every_record_is_appended_once_through_many_failures(t):
    """Each kind of failure, again and again, in an order that is the same in every run."""
    t.connect(attempt_ms=700, backoff_max_ms=100)
    t.producer(batch_records=5)
    actions = (
        Break(applied=True),
        refusal(retry="same"),
        Break(applied=False),
        refusal(outcome="unknown", retry="same", applied=True),
        refusal(retry="elsewhere"),
        plain("UNAVAILABLE"),
        plain("INTERNAL", applied=True),
        plain("CANCELLED"),
        refusal(outcome="done", retry="same", applied=True),
    )
    random = Random(7)
    for _ in range(12):
        for action in random.sample(actions, len(actions)):
            t.cluster.fault("ProduceStream", action, skip=random.randrange(1, 20))
    t.cluster.fault("ProduceStream", Silent(applied=True), skip=30)
    t.cluster.fault("ConsumeStream.message", Break(), times=10, skip=5)
    t.consumer()
    many = [t.send_many(500, prefix=f"{piece}-") for piece in range(6)]
    expected = [f"{piece}-{n}" for piece in range(6) for n in range(500)]
    answers = [pending.result() for pending in many]
    equal([answer["first_offset"] for answer in answers], list(range(0, 3000, 500)))
    equal(t.log.values(), expected)
    same_requests(t)
    equal(t.next(3000), expected)


@case
def a_stream_that_does_not_answer_is_broken(t):
    t.connect(attempt_ms=1000)
    t.producer()
    t.send("a").result()
    t.cluster.fault("ProduceStream", Silent(applied=True))
    began = time.monotonic()
    answer = t.send("b").result()
    equal((answer["offset"], answer["duplicate"]), (1, True))
    assert 0.9 < time.monotonic() - began < 1 + 2 * SLACK
    equal(t.log.values(), ["a", "b"])


@case
def a_connection_that_is_frozen_is_left(t):
    t.connect(attempt_ms=1000)
    t.producer()
    t.send("a").result()
    t.cluster.nodes[t.cluster.requests("ProduceStream")[0].node].proxy.freeze()
    equal(t.send("b").result()["offset"], 1)
    equal(t.log.values(), ["a", "b"])


@case
def registers_with_the_same_instance_in_all_attempts(t):
    t.connect()
    t.cluster.fault("InitProducer", Break(applied=True))
    t.cluster.fault("InitProducer", refusal(retry="elsewhere"))
    t.producer("p")
    t.send("a", "p").result()
    instances = {seen.request.instance for seen in t.cluster.requests("InitProducer")}
    equal((len(t.cluster.requests("InitProducer")), len(instances), 0 in instances), (3, 1, False))
    t.producer("q")
    t.send("b", "q").result()
    equal(len({seen.request.instance for seen in t.cluster.requests("InitProducer")}), 2, "instances of two producers")
    equal(len(t.log.producers), 2)


@case
def a_named_producer_continues_after_the_process_before_it(t):
    t.connect()
    answer = t.producer(name="orders")
    equal((answer["last_sequence"], answer["records"]), (0, 0))
    t.send_many(3).result()
    t.driver.ask("close_producer", producer="p", timeout_ms=20_000)
    t.driver.kill()
    t.driver = t.new_driver()
    t.connect()
    answer = t.producer(name="orders")
    [state] = t.log.producers.values()
    equal((answer["last_sequence"], answer["last_offset"], answer["records"]), (state.last_sequence, 2, 3))
    equal(t.send("next").result()["offset"], 3)
    equal((state.epoch, state.records), (2, 4))


@case
def a_producer_that_is_fenced_fails(t):
    t.connect()
    t.producer(name="orders")
    t.send("a").result()
    t.cluster.change(lambda log: log.fence_producers())
    for value in ("b", "c"):
        error = t.send(value).failure()
        equal((error.kind, error.reason), ("fenced", "PRODUCER_FENCED"))
    equal(t.log.values(), ["a"])


@case
def a_request_that_was_done_does_not_stop_those_after_it(t):
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    done = refusal("FAILED_PRECONDITION", "SEQUENCE_TOO_OLD", "done", "no", applied=True)
    t.cluster.fault("ProduceStream", done, when=lambda request: request.records[0].value == b"b")
    sent = [t.send(value) for value in "abcd"]
    t.cluster.wait_requests("ProduceStream", 4)
    t.cluster.release("ProduceStream")
    equal([pending.result()["offset"] for pending in sent], [0, None, 2, 3])
    equal(t.log.values(), list("abcd"))


@case
def a_stream_that_ends_while_it_is_idle_fails_no_record(t):
    t.connect()
    t.producer()
    for offset, error in enumerate((refusal("PERMISSION_DENIED", "NOT_ALLOWED", "none", "no"), plain("INTERNAL"), refusal())):
        equal(t.send(f"v{offset}").result()["offset"], offset)
        t.cluster.end_produce_streams(error)
        # The library notices the end.
        assert t.stays(lambda: True)
    equal(t.send("v3").result()["offset"], 3)
    equal(t.log.values(), values(4))


@case
def send_waits_while_the_buffer_is_full(t):
    t.connect()
    t.producer(buffer_bytes=1_000_000, batch_records=1)
    t.cluster.hold("ProduceStream")
    sent = [t.send("x" * 100_000) for _ in range(30)]
    t.cluster.wait_requests("ProduceStream", 8)
    # A library may accept the record with which the buffer gets full.
    assert t.stays(lambda: len(t.requests()) <= 11), "the buffer has no limit"
    t.cluster.release("ProduceStream")
    equal([pending.result()["offset"] for pending in sent], list(range(30)))


@case
def a_record_that_is_too_large_fails_alone(t):
    t.log.max_record_bytes = 1000
    t.connect()
    t.producer()
    sent = [t.send("a"), t.send("x" * 900, key="k" * 60, headers=[["n" * 10, "v" * 31]]), t.send("b")]
    equal([sent[0].result()["offset"], sent[2].result()["offset"]], [0, 1])
    error = sent[1].failure()
    equal((error.kind, error.outcome), ("too_large", "none"))
    equal(t.send("x" * 900, key="k" * 60, headers=[["n" * 10, "v" * 30]]).result()["offset"], 2)
    assert all(record_bytes(record) <= 1000 for request in t.requests() for record in request.records)


@case
def the_limit_is_read_again_when_a_record_is_refused(t):
    t.connect()
    t.producer()
    t.send("a").result()
    t.log.max_record_bytes = 1000
    error = t.send("x" * 2000).failure()
    equal((error.kind, error.outcome), ("too_large", "none"))
    equal(t.send("b").result()["offset"], 1)
    equal(t.send("y" * 2000).failure().kind, "too_large")
    equal(t.send("c").result()["offset"], 2)
    assert not any(b"y" in record.value for request in t.requests() for record in request.records)


@case
def a_record_that_is_refused_is_taken_out_from_between_the_others(t):
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    t.log.max_record_bytes = 1000
    sent = [t.send(value) for value in ("a", "x" * 2000, "b", "y" * 2000, "c")]
    t.cluster.wait_requests("ProduceStream", 5)
    t.cluster.release("ProduceStream")
    equal([pending.failure().kind for pending in sent[1::2]], ["too_large"] * 2)
    equal([pending.result()["offset"] for pending in sent[::2]], [0, 1, 2])
    equal(t.log.values(), ["a", "b", "c"])


@case
def a_record_that_may_have_been_appended_is_not_taken_out(t):
    """Its sequence can't be given to another request, although the log refuses the record now."""
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", Break(), when=lambda request: request.records[0].value[:1] == b"x")
    sent = [t.send(value) for value in ("a", "x" * 2000, "b")]
    t.cluster.wait_requests("ProduceStream", 3)
    t.log.max_record_bytes = 1000
    t.cluster.release("ProduceStream")
    equal(sent[0].result()["offset"], 0)
    equal([pending.failure().outcome for pending in sent[1:]], ["unknown", "unknown"])
    equal([pending.failure().kind for pending in (sent[1], t.send("c"))], ["too_large"] * 2)
    equal(t.log.values(), ["a"])


@case
def the_limit_is_read_again_before_a_record_is_too_large(t):
    """It was raised while the producer runs. It is read once a second at most."""
    t.log.max_record_bytes = 1000
    t.connect()
    t.producer()
    t.send("a").result()
    before = len(t.cluster.requests("GetLog"))
    t.log.max_record_bytes = 3000
    sent = [t.send("x" * 2000), t.send("b")]
    equal([pending.result()["offset"] for pending in sent], [1, 2])
    for error in [t.send("y" * 4000).failure() for _ in range(20)]:
        equal((error.kind, error.outcome, error.metadata["max"]), ("too_large", "none", "3000"))
    reads = t.cluster.requests("GetLog")[before:]
    assert all(pause > 0.9 for pause in gaps(reads)), gaps(reads)
    equal(t.send("c").result()["offset"], 3)


@case
def a_refusal_counts_although_a_node_does_not_know_the_limit_yet(t):
    t.connect()
    t.producer()
    t.send("a").result()
    stale = t.log.get_log(pb.GetLogRequest())
    t.cluster.fault("GetLog", Answer(stale), times=float("inf"))
    t.log.max_record_bytes = 1000
    sent = [t.send("x" * 2000), t.send("b"), t.send("y" * 2000), t.send("c")]
    equal([pending.failure().kind for pending in sent[::2]], ["too_large"] * 2)
    equal([pending.result()["offset"] for pending in sent[1::2]], [1, 2])
    equal(t.log.values(), ["a", "b", "c"])


@case
def a_record_is_too_large_by_the_known_limit_if_no_node_says_otherwise(t):
    t.log.max_record_bytes = 1000
    t.connect(attempt_ms=700)
    t.producer()
    t.cluster.fault("GetLog", refusal(retry="same"), times=float("inf"))
    began = time.monotonic()
    equal(t.send("x" * 2000).failure().kind, "too_large")
    assert time.monotonic() - began < 0.7 + 2 * SLACK, time.monotonic() - began
    equal(t.send("a").result()["offset"], 0)


@case
def an_unnamed_producer_that_was_evicted_registers_again(t):
    t.connect()
    t.producer()
    t.send_many(10).result()
    t.cluster.change(lambda log: log.evict_producers())
    equal(t.send("b").result()["offset"], 10)
    equal(t.send("c").result()["offset"], 11)
    equal(t.log.values(), [*values(10), "b", "c"])


@case
def an_evicted_producer_sends_everything_again_in_order(t):
    t.connect()
    t.producer(batch_records=1)
    t.send("a").result()
    t.cluster.change(lambda log: log.evict_producers())
    t.cluster.hold("ProduceStream")
    sent = [t.send(value) for value in values(5)]
    t.cluster.wait_requests("ProduceStream", 6)
    t.cluster.release("ProduceStream")
    equal([pending.result()["offset"] for pending in sent], [1, 2, 3, 4, 5])
    equal(t.log.values(), ["a", *values(5)])


@case
def an_evicted_producer_fails_if_a_request_may_have_been_appended(t):
    t.connect()
    t.producer()
    t.send("a").result()
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", Break(applied=True))
    pending = t.send("b")
    t.cluster.wait("b is appended", lambda: len(t.log.records) == 2)
    t.cluster.change(lambda log: log.evict_producers())
    t.cluster.release("ProduceStream")
    error = pending.failure()
    equal((error.reason, error.outcome, error.kind), ("PRODUCER_UNKNOWN", "unknown", "outcome_unknown"))
    equal(t.send("c").failure().reason, "PRODUCER_UNKNOWN")
    equal(t.log.values(), ["a", "b"])


@case
def an_error_closes_the_producer_in_order(t):
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", refusal("PERMISSION_DENIED", "NOT_ALLOWED", "none", "no"), skip=1)
    sent = [t.send(value) for value in "abcde"]
    t.cluster.wait_requests("ProduceStream", 5)
    t.cluster.release("ProduceStream")
    equal(sent[0].result()["offset"], 0)
    for pending in sent[1:]:
        error = pending.failure()
        equal((error.kind, error.reason, error.outcome), ("not_allowed", "NOT_ALLOWED", "none"))
    equal(t.send("f").failure().reason, "NOT_ALLOWED")
    order = [pending.order for pending in sent]
    equal(order, sorted(order), "the order of the answers")
    equal(t.log.values(), ["a"])


@case
def each_record_has_its_own_outcome(t):
    t.connect()
    t.producer(batch_records=1)
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", refusal("UNKNOWN", "OUTCOME_UNKNOWN", "unknown", "no", metadata={"unknown_through": 2}), skip=1)
    sent = [t.send(value) for value in "abcd"]
    t.cluster.wait_requests("ProduceStream", 4)
    t.cluster.release("ProduceStream")
    equal(sent[0].result()["offset"], 0)
    equal([pending.failure().outcome for pending in sent[1:]], ["unknown", "unknown", "none"])
    equal([pending.failure().reason for pending in sent[1:]], ["OUTCOME_UNKNOWN"] * 3)


@case
def nothing_after_a_failed_request_was_appended_by_its_attempt(t):
    """Without unknown_through, the unknown outcome is that of the failed request. Earlier attempts keep theirs."""
    t.connect()
    unknown = refusal("FAILED_PRECONDITION", "INVENTED_BY_THE_TEST", "unknown", "no")
    for name, earlier, outcomes in (("p", None, ["unknown", "none", "none"]), ("q", Break(), ["unknown"] * 3)):
        t.producer(name, batch_records=1)
        t.cluster.hold("ProduceStream")
        if earlier:
            t.cluster.fault("ProduceStream", earlier, when=lambda request: request.records[0].value == b"b")
        t.cluster.fault("ProduceStream", unknown, when=lambda request: request.records[0].value == b"b")
        before = len(t.requests())
        sent = [t.send(value, name) for value in "abcd"]
        t.cluster.wait_requests("ProduceStream", before + 4)
        t.cluster.release("ProduceStream")
        sent[0].result()
        equal([pending.failure().outcome for pending in sent[1:]], outcomes, name)


@case
def the_delivery_timeout_closes_the_producer(t):
    t.connect()
    t.producer(delivery_ms=1500)
    # It ends in the pause. The outcome of an attempt without an answer would be unknown.
    t.cluster.fault("ProduceStream", refusal(retry="same", retry_ms=10_000), times=float("inf"))
    began = time.monotonic()
    sent = [t.send("a"), t.send("b")]
    errors = [pending.failure() for pending in sent]
    assert 1.4 < time.monotonic() - began < 1.5 + 2 * SLACK
    for error in errors:
        assert error.kind in ("timeout", "unavailable"), error
        equal(error.outcome, "none")
    t.cluster.clear_faults()
    equal(t.send("c").failure().kind, errors[0].kind)
    equal(t.log.values(), [])


@case
def the_delivery_timeout_tells_what_may_have_been_appended(t):
    t.connect(attempt_ms=700)
    t.producer(delivery_ms=1500)
    t.cluster.hold("ProduceStream")
    t.cluster.fault("ProduceStream", Silent(applied=True), times=float("inf"))
    first = t.send("a")
    t.cluster.wait_requests("ProduceStream", 1)
    second = t.send("b")
    equal((first.failure().outcome, second.failure().outcome), ("unknown", "none"))
    equal(first.failure().kind, "outcome_unknown")
    equal(t.log.values(), ["a"])


@case
def flush_waits_for_what_was_sent_before(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    sent = t.send_many(10)
    t.cluster.wait_requests("ProduceStream", 1)
    equal(t.driver.start("flush", producer="p", timeout_ms=300).failure().kind, "timeout")
    flush = t.driver.start("flush", producer="p", timeout_ms=20_000)
    t.cluster.release("ProduceStream")
    flush.result()
    equal(t.log.values(), values(10))
    sent.result()
    t.driver.ask("flush", producer="p", timeout_ms=1000)


@case
def close_flushes_and_accepts_no_more(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    sent = t.send_many(10)
    t.cluster.wait_requests("ProduceStream", 1)
    close = t.driver.start("close_producer", producer="p", timeout_ms=20_000)
    error = t.send("late").failure()
    equal((error.kind, error.outcome), ("closed", "none"))
    t.cluster.release("ProduceStream")
    close.result()
    sent.result()
    t.driver.ask("close_producer", producer="p", timeout_ms=20_000)
    equal(t.log.values()[:10], values(10))


@case
def close_fails_what_is_left_with_its_outcome(t):
    t.connect()
    t.producer()
    t.cluster.hold("ProduceStream")
    first = t.send("a")
    t.cluster.wait_requests("ProduceStream", 1)
    second = t.send("b")
    t.driver.start("close_producer", producer="p", timeout_ms=500).wait()
    equal(first.failure().outcome, "unknown")
    assert first.failure().kind in ("closed", "outcome_unknown"), first.failure()
    equal((second.failure().outcome, second.failure().kind), ("none", "closed"))


@case
def close_answers_calls_that_wait_for_the_buffer(t):
    t.connect()
    t.producer(buffer_bytes=250_000, batch_records=1)
    t.cluster.hold("ProduceStream")
    sent = [t.send("x" * 100_000) for _ in range(10)]
    t.cluster.wait_requests("ProduceStream", 2)
    t.driver.start("close_producer", producer="p", timeout_ms=500).wait()
    outcomes = [pending.failure().outcome for pending in sent]
    equal((outcomes[0], outcomes[-1], sent[-1].failure().kind), ("unknown", "none", "closed"))
    t.cluster.release("ProduceStream")
    t.producer("q")
    t.send("a", "q").result()


@case
def a_producer_can_be_closed_after_its_client(t):
    t.append("a")
    t.connect()
    t.producer()
    t.consumer()
    t.send("b").result()
    t.driver.ask("close")
    error = t.send("c").failure()
    equal((error.kind, error.outcome), ("closed", "none"))
    began = time.monotonic()
    t.driver.start("flush", producer="p", timeout_ms=20_000).wait()
    t.driver.ask("close_producer", producer="p", timeout_ms=20_000)
    t.driver.ask("close_consumer", consumer="c")
    assert time.monotonic() - began < 2 * SLACK, "it waits"


@case
def a_log_that_does_not_exist_is_not_found(t):
    t.connect()
    equal(t.driver.start("producer", producer="p", log="nope").failure().kind, "not_found")
    t.consumer(log="nope")
    equal(t.start_next(1).failure().kind, "not_found")


# --- Consumer -------------------------------------------------------------------------------------------------------------------


@case
def a_consumer_resumes_after_a_broken_connection(t):
    t.log.append(*values(50))
    t.connect()
    t.cluster.fault("ConsumeStream.message", Break(), times=3, skip=1)
    t.consumer()
    equal(t.next(50), values(50))
    t.append("new")
    equal(t.next(1), ["new"])
    again = [seen.request for seen in t.cluster.requests("ConsumeStream")][1:]
    assert again, "the test did not break the stream"
    for request in again:
        equal((request.start, request.log_id), (pb.START_OFFSET, t.log.log_id))


@case
def a_consumer_starts_where_it_is_told(t):
    t.log.append(*values(10))
    for record in t.log.records:
        record.append_time_us = 1000 + record.offset
    t.log.trim(2)
    t.connect()
    for name, expected, fields in (
        ("earliest", "v2", {"start": "earliest"}),
        ("offset", "v5", {"start": "offset", "offset": 5}),
        ("last", "v7", {"start": "last", "offset": 3}),
        ("time", "v6", {"start": "time", "time_us": 1006}),
    ):
        t.consumer(name, **fields)
        equal(t.next(1, name), [expected], name)
    count = len(t.cluster.requests("ConsumeStream"))
    t.consumer("latest", start="latest")
    t.cluster.wait_requests("ConsumeStream", count + 1)
    t.cluster.wait("it has its start", lambda: t.cluster.streamed_messages > count)
    t.append("new")
    equal(t.next(1, "latest"), ["new"])
    t.consumer("past", start="offset", offset=100)
    equal(t.start_next(1, "past").failure().kind, "past_end")


@case
def a_consumer_that_began_at_the_end_leaves_nothing_out(t):
    """It loses its connection before the first record, and records are appended meanwhile."""
    t.log.append(*values(3))
    t.connect()
    t.consumer(start="latest", heartbeat_ms=1000)
    # With the second message, the first one has arrived.
    t.cluster.wait("the first heartbeat", lambda: t.cluster.streamed_messages >= 2)
    for node in t.cluster.nodes:
        node.proxy.down()
    t.append("x")
    for node in t.cluster.nodes:
        node.proxy.up()
    equal(t.next(1), ["x"])
    request = t.cluster.requests("ConsumeStream")[-1].request
    equal((request.start, request.offset, request.log_id), (pb.START_OFFSET, 3, t.log.log_id))


@case
def a_consumer_does_not_accept_a_gap(t):
    t.log.append(*values(6))
    kept = [record for record in t.log.records if record.offset != 2]
    message = pb.ConsumeResponse(records=kept, next_offset=6, resume_offset=6, log_id=t.log.log_id)
    t.cluster.fault("ConsumeStream.message", Answer(message))
    t.connect()
    t.consumer()
    pending = t.start_next(6)
    try:
        found = [record["value"] for record in pending.result()["records"]]
    except Failed:
        found = []
    equal(found, values(6)[: len(found)])
    if found != values(6):
        # It stopped in front of the gap.
        t.start_next(1).failure()


@case
def a_consumer_stops_reading_ahead(t):
    t.log.append(*(["x" * 100_000] * 500))
    t.connect()
    t.consumer()
    equal(len(t.next(1)), 1)
    # The library and the windows of HTTP/2 take their part of the 50 MB.
    while not t.stays(lambda sent=t.cluster.streamed_bytes: t.cluster.streamed_bytes == sent, 1.0):
        pass
    assert t.cluster.streamed_bytes < 30_000_000, f"it read {t.cluster.streamed_bytes} bytes ahead"
    answer = t.start_next(100).result()
    equal([record["offset"] for record in answer["records"]], list(range(1, 101)))


@case
def a_silent_stream_is_broken_after_three_heartbeats(t):
    t.append("a")
    t.connect()
    t.consumer(heartbeat_ms=1000)
    equal(t.next(1), ["a"])
    equal(t.cluster.requests("ConsumeStream")[0].request.heartbeat_ms, 1000)
    t.cluster.fault("ConsumeStream.message", Silent())
    began = time.monotonic()
    t.append("b")
    equal(t.next(1), ["b"])
    assert 1.9 < time.monotonic() - began < 3 + 2 * SLACK, time.monotonic() - began
    equal(len(t.cluster.requests("ConsumeStream")), 2, "streams")


@case
def heartbeats_keep_a_stream(t):
    t.connect()
    t.consumer("default")
    t.cluster.wait_requests("ConsumeStream", 1)
    assert t.cluster.requests("ConsumeStream")[0].request.heartbeat_ms in (0, 10_000), "the default is 10 s"
    t.consumer(heartbeat_ms=1000)
    t.cluster.wait("six messages", lambda: t.cluster.streamed_messages >= 7)
    equal(len(t.cluster.requests("ConsumeStream")), 2, "streams")


@case
def a_consumer_reconnects_without_an_end(t):
    t.append("a")
    t.connect(operation_ms=1000, backoff_max_ms=100)
    t.cluster.fault("ConsumeStream", refusal(retry="elsewhere"), times=float("inf"))
    t.consumer()
    pending = t.start_next(1)
    seen = lambda: t.cluster.requests("ConsumeStream")  # noqa: E731
    t.cluster.wait("attempts for 3 s", lambda: seen() and seen()[-1].time - seen()[0].time > 3)
    t.cluster.clear_faults()
    equal([record["value"] for record in pending.result()["records"]], ["a"])


@case
def max_silence_ends_a_consumer_with_the_last_error(t):
    t.append("a")
    t.connect()
    t.consumer(max_silence_ms=1500)
    equal(t.next(1), ["a"])
    t.cluster.fault("ConsumeStream", refusal(retry="elsewhere"), times=float("inf"))
    began = time.monotonic()
    for node in t.cluster.nodes:
        node.proxy.break_connections()
    error = t.start_next(1).failure()
    equal((error.kind, error.reason), ("unavailable", "INVENTED_BY_THE_TEST"))
    assert 0.9 < time.monotonic() - began < 1.5 + 2 * SLACK, time.monotonic() - began


@case
def trimmed_records_end_a_consumer(t):
    t.log.append(*values(10))
    t.log.trim(5)
    t.connect()
    t.consumer(start="offset", offset=2)
    error = t.start_next(1).failure()
    equal((error.kind, error.metadata["first_offset"]), ("trimmed", "5"))


@case
def trimmed_records_can_be_skipped(t):
    t.log.append(*values(10))
    t.log.trim(5)
    t.connect()
    t.consumer(start="offset", offset=2, skip_trimmed=True)
    answer = t.start_next(5).result()
    equal([record["value"] for record in answer["records"]], values(10)[5:])
    equal(answer["skipped"], 3)


@case
def records_that_are_trimmed_while_a_consumer_is_away_are_noticed(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer("fails")
    t.consumer("skips", skip_trimmed=True)
    equal(t.next(10, "fails") + t.next(10, "skips"), values(10) * 2)
    for node in t.cluster.nodes:
        node.proxy.down()
    t.append(*values(10, "w"))
    t.cluster.change(lambda log: log.trim(14))
    for node in t.cluster.nodes:
        node.proxy.up()
    error = t.start_next(1, "fails").failure()
    equal((error.kind, error.metadata["first_offset"]), ("trimmed", "14"))
    answer = t.start_next(6, "skips").result()
    equal([record["value"] for record in answer["records"]], values(10, "w")[4:])
    equal(answer["skipped"], 4)


@case
def a_log_that_was_created_anew_is_a_mismatch(t):
    t.append("a")
    t.connect()
    t.consumer()
    equal(t.next(1), ["a"])
    t.log.log_id = "another-id"
    for node in t.cluster.nodes:
        node.proxy.break_connections()
    error = t.start_next(1).failure()
    equal((error.kind, error.reason), ("mismatch", "LOG_ID_MISMATCH"))


@case
def a_damaged_record_is_read_from_another_node(t):
    t.log.append(*values(3))
    t.connect()
    damaged = refusal("DATA_LOSS", "RECORD_DAMAGED", "none", "elsewhere", metadata={"offset": 0, "resume_offset": 1})
    t.cluster.fault("ConsumeStream", damaged, times=2)
    t.consumer()
    equal(t.next(3), values(3))
    equal(len({seen.node for seen in t.cluster.requests("ConsumeStream")}), 3, "nodes")


@case
def a_record_that_is_damaged_everywhere_is_data_loss(t):
    t.log.append(*values(3))
    t.connect()
    damaged = refusal("DATA_LOSS", "RECORD_DAMAGED", "none", "elsewhere", metadata={"offset": 0, "resume_offset": 1})
    t.cluster.fault("ConsumeStream", damaged, times=float("inf"))
    t.consumer()
    equal(t.start_next(1).failure().kind, "data_loss")
    equal(len({seen.node for seen in t.cluster.requests("ConsumeStream")}), 3, "nodes")


@case
def close_ends_a_consumer(t):
    t.append("a")
    t.connect()
    t.consumer()
    equal(t.next(1), ["a"])
    waiting = t.start_next(1)
    t.driver.ask("close_consumer", consumer="c")
    waiting.wait()
    t.cluster.wait("the stream ends", lambda: t.cluster.open_streams == 0)


# --- Cursors --------------------------------------------------------------------------------------------------------------------


@case
def a_cursor_continues_where_it_was_committed(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k")
    equal(t.next(3), values(3))
    equal(t.driver.ask("commit", consumer="c")["next_offset"], 3)
    answer = t.get_cursor().result()
    equal((answer["next_offset"], answer["epoch"], answer["lag"]), (3, 1, 7))
    equal(t.next(2), ["v3", "v4"])
    t.driver.kill()
    t.driver = t.new_driver()
    t.connect()
    # The start applies to a new cursor only.
    t.consumer(cursor="k", start="latest")
    equal(t.next(2), ["v3", "v4"])
    streams = [seen.request for seen in t.cluster.requests("ConsumeStream")]
    epoch = t.log.cursors["k"].epoch
    assert epoch > 1
    equal([(request.cursor, request.cursor_epoch) for request in streams], [("k", 1), ("k", epoch)])


@case
def the_start_applies_to_a_new_cursor(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k", start="last", offset=2)
    equal(t.next(2), ["v8", "v9"])
    equal(t.driver.ask("commit", consumer="c")["next_offset"], 10)


@case
def a_cursor_is_acquired_with_the_same_instance_in_all_attempts(t):
    t.append("a")
    t.connect()
    t.cluster.fault("AcquireCursor", Break(applied=True))
    t.cluster.fault("AcquireCursor", refusal(retry="elsewhere"))
    t.consumer(cursor="k")
    equal(t.next(1), ["a"])
    instances = {seen.request.instance for seen in t.cluster.requests("AcquireCursor")}
    equal((len(t.cluster.requests("AcquireCursor")), len(instances), 0 in instances), (3, 1, False))
    equal(t.log.cursors["k"].epoch, 1)


@case
def a_consumer_with_a_cursor_resumes_after_a_broken_connection(t):
    t.log.append(*values(20))
    t.connect()
    t.cluster.fault("ConsumeStream.message", Break(), times=2, skip=1)
    t.consumer(cursor="k", start="offset", offset=5)
    equal(t.next(15), values(20)[5:])
    t.append("new")
    equal(t.next(1), ["new"])
    streams = [seen.request for seen in t.cluster.requests("ConsumeStream")]
    assert len(streams) > 1, "the test did not break the stream"
    equal({(request.cursor, request.cursor_epoch) for request in streams}, {("k", 1)})


@case
def a_commit_is_repeated_until_it_is_answered(t):
    t.log.append(*values(5))
    t.connect()
    t.consumer(cursor="k")
    equal(t.next(5), values(5))
    t.cluster.fault("CommitCursor", Break(applied=True))
    t.cluster.fault("CommitCursor", refusal(retry="same"))
    equal(t.driver.ask("commit", consumer="c")["next_offset"], 5)
    equal(len(t.cluster.requests("CommitCursor")), 3, "attempts")


@case
def nothing_is_committed_by_itself(t):
    t.log.append(*values(5))
    t.connect()
    t.consumer(cursor="k")
    equal(t.next(5), values(5))
    t.driver.ask("close_consumer", consumer="c")
    equal((t.log.cursors["k"].next_offset, t.cluster.requests("CommitCursor")), (0, []))


@case
def auto_commit_counts_records_whose_successor_was_asked_for(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k", auto_commit_ms=200)
    equal(t.next(10), values(10))
    cursor = t.log.cursors["k"]
    assert t.stays(lambda: cursor.next_offset <= 9, 1.0), "the last record is not processed yet"
    equal(t.next(1, timeout=0.3), [])
    t.cluster.wait("the last record is committed", lambda: cursor.next_offset == 10)


@case
def auto_commit_never_goes_back_behind_a_commit(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k", auto_commit_ms=200)
    equal(t.next(5), values(5))
    equal(t.driver.ask("commit", consumer="c")["next_offset"], 5)
    assert t.stays(lambda: t.cluster.requests("CommitCursor")[-1].request.next_offset == 5, 1.0)
    equal(t.next(2), ["v5", "v6"])
    equal(t.driver.ask("commit", consumer="c")["next_offset"], 7)
    t.driver.ask("close_consumer", consumer="c")
    positions = [seen.request.next_offset for seen in t.cluster.requests("CommitCursor")]
    equal(positions, sorted(positions))


@case
def close_commits_once_more_with_auto_commit(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k", auto_commit_ms=600_000)
    equal(t.next(5), values(5))
    equal(t.next(1), ["v5"])
    t.driver.ask("close_consumer", consumer="c")
    equal(t.log.cursors["k"].next_offset, 5)


@case
def at_most_one_commit_is_in_flight(t):
    t.log.append(*values(10))
    t.connect()
    t.consumer(cursor="k", auto_commit_ms=100)
    t.cluster.hold("CommitCursor")
    equal(t.next(5), values(5))
    equal(t.next(1), ["v5"])
    t.cluster.wait_requests("CommitCursor", 1)
    equal(t.next(1), ["v6"])
    commit = t.driver.start("commit", consumer="c")
    assert t.stays(lambda: len(t.cluster.requests("CommitCursor")) == 1), "a second commit was sent"
    t.cluster.release("CommitCursor")
    equal(commit.result()["next_offset"], 7)


@case
def a_consumer_that_is_fenced_fails(t):
    t.log.append(*values(3))
    t.connect()
    t.consumer(cursor="k")
    equal(t.next(3), values(3))
    waiting = t.start_next(1)
    t.cluster.change(lambda log: log.fence_cursor("k"))
    equal(waiting.failure().kind, "fenced")
    equal(t.driver.start("commit", consumer="c").failure().kind, "fenced")
    equal(t.log.cursors["k"].next_offset, 0)


@case
def a_commit_that_is_fenced_fails(t):
    t.log.append(*values(3))
    t.connect()
    t.consumer(cursor="k")
    equal(t.next(3), values(3))
    t.cluster.fault("ConsumeStream", refusal(retry="elsewhere"), times=float("inf"))
    for node in t.cluster.nodes:
        node.proxy.break_connections()
    t.cluster.change(lambda log: log.fence_cursor("k"))
    error = t.driver.start("commit", consumer="c").failure()
    equal((error.kind, error.reason), ("fenced", "CURSOR_FENCED"))
