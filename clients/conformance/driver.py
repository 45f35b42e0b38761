"""Runs a driver: sends commands, and waits for their answers. README.md describes the protocol."""

import concurrent.futures
import itertools
import json
import os
import subprocess
import sys
import threading
import time

# How long an answer may take on a busy machine. A passing test does not wait that long.
TIMEOUT = 30.0
# Settings and proxies of the environment must not reach a driver. A JVM prints its settings to stderr.
JAVA_SETTINGS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
ENV = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("SERIATIM") and not name.lower().endswith("_proxy") and name not in JAVA_SETTINGS
}
# Whether to print commands and answers.
SHOW = bool(os.environ.get("SHOW"))
ERROR_FIELDS = {"kind", "code", "reason", "outcome", "retry", "message", "metadata"}
KINDS = set(
    "not_found mismatch fenced too_large trimmed past_end not_allowed unavailable exhausted data_loss outcome_unknown invalid "
    "timeout cancelled closed other".split()
)


def show(*words):
    if SHOW:
        print(f"{time.monotonic():.3f}", *(word.strip()[:400] for word in words), file=sys.stderr, flush=True)


class Failed(Exception):
    """The error of an answer."""

    def __init__(self, error):
        super().__init__(json.dumps(error, sort_keys=True))
        missing = ERROR_FIELDS - set(error)
        assert not missing, f"the error of the driver lacks {missing}: {error}"
        assert error["kind"] in KINDS, f"unknown kind: {error}"
        self.kind, self.code, self.reason = error["kind"], error["code"], error["reason"]
        self.outcome, self.retry = error["outcome"], error["retry"]
        self.message, self.metadata = error["message"], error["metadata"]


class Pending:
    """A command whose answer may not be there yet."""

    def __init__(self, driver, command):
        self.driver, self.command, self.future = driver, command, concurrent.futures.Future()
        # Numbers the answers of a driver in the order of their arrival.
        self.order = None

    def done(self):
        return self.future.done()

    def result(self, timeout=TIMEOUT):
        """Waits for the answer. Raises `Failed` if it is an error."""
        answer = self._answer(timeout)
        if answer.get("error"):
            raise Failed(answer["error"])
        return answer

    def failure(self, timeout=TIMEOUT):
        """Waits for the answer, which must be an error."""
        answer = self._answer(timeout)
        assert answer.get("error"), f"{self.command} succeeded: {answer}"
        return Failed(answer["error"])

    def wait(self, timeout=TIMEOUT):
        """Waits for the answer, which may be an error."""
        self._answer(timeout)

    def _answer(self, timeout):
        try:
            return self.future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise AssertionError(f"no answer within {timeout} s: {self.command}") from None


class Driver:
    """A driver process. Use it as a context manager."""

    def __init__(self, command):
        self.numbers, self.pending, self.lock = itertools.count(1), {}, threading.Lock()
        self.answers = itertools.count(1)
        # Why no more answers arrive.
        self.ended = ""
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV, encoding="utf-8", bufsize=1
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, op, **fields):
        """Sends a command, and returns its `Pending`."""
        number = next(self.numbers)
        command = {"id": number, "op": op} | {name: value for name, value in fields.items() if value is not None}
        shown = json.dumps(command)
        show("->", shown)
        pending = Pending(self, shown if len(shown) < 300 else shown[:300] + "...")
        with self.lock:
            if self.ended:
                raise AssertionError(f"{self.ended}; {pending.command}")
            self.pending[number] = pending
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise AssertionError(f"the driver has exited: {error}") from error
        return pending

    def ask(self, op, timeout=TIMEOUT, **fields):
        """Sends a command, and returns its answer."""
        return self.start(op, **fields).result(timeout)

    def _read(self):
        try:
            for line in self.process.stdout:
                show("<-", line)
                answer = json.loads(line)
                with self.lock:
                    pending = self.pending.pop(answer["id"])
                pending.order = next(self.answers)
                pending.future.set_result(answer)
            why = "the driver has closed its output"
        except Exception as error:  # noqa: BLE001 The commands that wait get it.
            why = f"a line of the driver is no answer: {error!r}"
        with self.lock:
            self.ended = why
            left, self.pending = list(self.pending.values()), {}
        for pending in left:
            pending.future.set_exception(AssertionError(f"{why}; {pending.command}"))

    def end(self, timeout=TIMEOUT):
        """Closes the input, and returns the exit code."""
        self.process.stdin.close()
        return self.process.wait(timeout)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        self.reader.join(TIMEOUT)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass

