"""The driver of the conformance test: executes the commands of clients/conformance/README.md, one JSON object per line."""

import concurrent.futures
import json
import logging
import os
import sys
import threading
import time
import traceback

from seriatim import Client, Error, Options, Record, Start

STARTS = {
    "earliest": lambda command: Start.EARLIEST,
    "latest": lambda command: Start.LATEST,
    "offset": lambda command: Start.at(command.pop("offset")),
    "time": lambda command: Start.time(command.pop("time_us")),
    "last": lambda command: Start.last(command.pop("offset")),
}


def seconds(command, name):
    ms = command.pop(name, None)
    return None if ms is None else ms / 1000


class Driver:
    def __init__(self):
        self.client, self.producers, self.consumers = None, {}, {}
        self.output = threading.Lock()
        self.workers = concurrent.futures.ThreadPoolExecutor(64)
        # One thread for each producer and consumer, so that its commands stay in order.
        self.queues = {}

    def answer(self, number, fields):
        with self.output:
            sys.stdout.write(json.dumps({"id": number} | fields) + "\n")
            sys.stdout.flush()

    def fail(self, number, error):
        fields = ("kind", "code", "reason", "outcome", "retry", "message", "metadata")
        self.answer(number, {"error": {name: getattr(error, name) for name in fields}})

    def bug(self, number, error):
        traceback.print_exception(error)
        empty = {"code": "INTERNAL", "reason": "", "outcome": "unknown", "retry": "no", "metadata": {}}
        self.answer(number, {"error": {"kind": "other", "message": f"bug of the driver: {error!r}"} | empty})

    def run(self):
        for line in sys.stdin:
            command = json.loads(line)
            number, op = command.pop("id"), command.pop("op")
            run = getattr(self, f"do_{op}", None)
            if op in ("send", "send_many"):
                worker = self.queues.setdefault(command["producer"], concurrent.futures.ThreadPoolExecutor(1))
            elif op == "next":
                worker = self.queues.setdefault(("next", command["consumer"]), concurrent.futures.ThreadPoolExecutor(1))
            elif op in ("connect", "flush"):
                worker = None
            else:
                worker = self.workers
            self.execute(worker, run, number, op, command)

    def execute(self, worker, run, number, op, command):
        def work():
            try:
                if run is None:
                    raise ValueError(f"unknown op {op}")
                result = run(number, command)
                if result is not None:
                    self.answer(number, result)
            except Error as error:
                self.fail(number, error)
            except Exception as error:
                self.bug(number, error)

        if op == "flush":
            # It covers what was sent before: it waits its turn in the queue of the producer, and then does not block it.
            queue = self.queues.setdefault(command["producer"], concurrent.futures.ThreadPoolExecutor(1))
            queue.submit(lambda: self.workers.submit(work))
        elif worker:
            worker.submit(work)
        else:
            work()

    @staticmethod
    def end(command):
        if command:
            raise ValueError(f"unknown fields {sorted(command)}")

    def do_connect(self, _, command):
        options = command.pop("options", {})
        names = {"attempt": "attempt_ms", "operation": "operation_ms", "connect": "connect_ms"}
        names |= {"backoff_min": "backoff_min_ms", "backoff_max": "backoff_max_ms"}
        times = {field: options.pop(name) / 1000 for field, name in names.items() if name in options}
        self.end(options)
        addrs, tls = command.pop("addrs"), command.pop("tls", {})
        self.end(command)
        self.client = Client(addrs, **tls, options=Options(**times))
        return {}

    def do_ready(self, _, command):
        self.client.ready(seconds(command, "timeout_ms"))
        return {}

    def do_producer(self, _, command):
        key, log = command.pop("producer"), command.pop("log")
        delivery = seconds(command, "delivery_ms")
        known = ("name", "batch_records", "batch_bytes", "buffer_bytes")
        settings = {name: command.pop(name) for name in known if name in command}
        self.end(command)
        producer = self.client.producer(log, delivery_timeout=delivery, **settings)
        self.producers[key] = producer
        fields = ("last_sequence", "last_offset", "records")
        return {name: getattr(producer, name) for name in fields}

    def do_send(self, number, command):
        producer = self.producers[command.pop("producer")]
        key = command.pop("key", None)
        headers = tuple((name, value.encode("latin-1")) for name, value in command.pop("headers", []))
        value = command.pop("value").encode("latin-1")
        record = Record(value, None if key is None else key.encode("latin-1"), headers, command.pop("type", 0))
        self.end(command)

        def done(future):
            if error := future.exception():
                self.fail(number, error)
            else:
                ack = future.result()
                self.answer(number, {"offset": ack.offset, "duplicate": ack.duplicate})

        producer.send(record).add_done_callback(done)

    def do_send_many(self, number, command):
        producer = self.producers[command.pop("producer")]
        prefix, count = command.pop("prefix"), command.pop("count")
        self.end(command)
        futures = [producer.send(f"{prefix}{n}".encode("latin-1")) for n in range(count)]

        def wait():
            try:
                acks = [future.result() for future in futures]
                many = {"first_offset": acks[0].offset, "last_offset": acks[-1].offset}
                self.answer(number, many | {"duplicates": sum(ack.duplicate for ack in acks)})
            except Error as error:
                self.fail(number, error)

        self.workers.submit(wait)

    def do_flush(self, _, command):
        self.producers[command.pop("producer")].flush(seconds(command, "timeout_ms"))
        return {}

    def do_close_producer(self, _, command):
        self.producers[command.pop("producer")].close(seconds(command, "timeout_ms"))
        return {}

    def do_consumer(self, _, command):
        key, log = command.pop("consumer"), command.pop("log")
        start = STARTS[command.pop("start")](command)
        settings = {"auto_commit": seconds(command, "auto_commit_ms"), "max_silence": seconds(command, "max_silence_ms")}
        if "heartbeat_ms" in command:
            settings["heartbeat"] = seconds(command, "heartbeat_ms")
        settings |= {name: command.pop(name) for name in ("cursor", "skip_trimmed") if name in command}
        self.end(command)
        self.consumers[key] = self.client.consumer(log, start, **settings)
        return {}

    def do_next(self, _, command):
        consumer = self.consumers[command.pop("consumer")]
        most, until = command.pop("max"), time.monotonic() + seconds(command, "timeout_ms")
        self.end(command)
        records, before = [], consumer.skipped
        try:
            while len(records) < most:
                record = consumer.poll(max(0, until - time.monotonic()))
                if record is None:
                    break
                records.append({"offset": record.offset, "value": record.value.decode("latin-1")})
        except Error:
            # The next command gets it.
            if not records:
                raise
        return {"records": records, "skipped": consumer.skipped - before}

    def do_commit(self, _, command):
        return {"next_offset": self.consumers[command.pop("consumer")].commit()}

    def do_close_consumer(self, _, command):
        self.consumers[command.pop("consumer")].close()
        return {}

    def do_get_cursor(self, _, command):
        cursor = self.client.cursor(command.pop("log"), command.pop("cursor"))
        return {"next_offset": cursor.next_offset, "epoch": cursor.epoch, "lag": cursor.lag}

    def do_close(self, _, command):
        self.client.close()
        return {}


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG if "-v" in sys.argv else logging.CRITICAL)
    Driver().run()
    # Threads that still wait do not keep the process.
    sys.stdout.flush()
    os._exit(0)
