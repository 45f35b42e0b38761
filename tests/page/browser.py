"""Drives a headless Chromium by the DevTools protocol, over a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

TIMEOUT = 30
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]


def find():
    """Returns the path of a browser, or None."""
    wanted = os.environ.get("CHROMIUM")
    return wanted or next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """A browser with one page. Use it as a context manager."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="seriatim-page.")
        # The browser reads commands from its descriptor 3, and writes answers to 4.
        read_end, self.to = os.pipe()
        self.answers, write_end = os.pipe()
        command = [
            program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--hide-scrollbars", f"--user-data-dir={self.profile}", "about:blank",
        ]
        shell = 'in=$1 out=$2; shift 2; eval "exec 3<&$in 4>&$out"; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(read_end), str(write_end), *command],
            pass_fds=[read_end, write_end], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        self.handlers = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.answers)
        # Processes of the browser may still write there for a moment.
        until = time.monotonic() + TIMEOUT
        while os.path.exists(self.profile) and time.monotonic() < until:
            shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        """Sends a command, and returns its result."""
        self.number += 1
        number = self.number
        self._send(number, method, params)
        until = time.monotonic() + TIMEOUT
        while True:
            message = self._receive(until)
            if message is None:
                raise AssertionError(f"{method}: the browser does not answer")
            if message.get("id") == number:
                if "error" in message:
                    raise AssertionError(f"{method}: {message['error']}")
                return message["result"]
            self._event(message)

    def _send(self, number, method, params):
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")

    def _event(self, message):
        if "method" not in message:
            return
        handler = self.handlers.get(message["method"])
        if handler:
            handler(message["params"])
        else:
            self.events.append(message)

    def _receive(self, until):
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            readable = left > 0 and select.select([self.answers], [], [], left)[0]
            if not readable:
                return None
            read = os.read(self.answers, 1 << 16)
            if not read:
                raise AssertionError("the browser has ended")
            self.buffer += read
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def post(self, method, **params):
        """Sends a command without waiting for its result. For handlers of events."""
        self.number += 1
        self._send(self.number, method, params)

    def wait(self, seconds):
        """Handles events for this time."""
        until = time.monotonic() + seconds
        while (message := self._receive(until)) is not None:
            self._event(message)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def eventually(self, what, expression):
        """Waits until a JavaScript expression is true."""
        until = time.monotonic() + TIMEOUT
        while not (value := self.evaluate(expression)):
            if time.monotonic() > until:
                text = self.evaluate("document.body.innerText")
                raise AssertionError(f"not within {TIMEOUT} s: {what}: {value}\n{text}")
            self.wait(0.1)
        return value

    def key(self, key, text=""):
        """Presses a key."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        params = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper())), "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **params)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def size(self, width, height, scale=1, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path):
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(image["data"]))

    def complaints(self):
        """Returns exceptions and messages of the console, for example of the content security policy."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"])
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"])
        return found

    def requested(self):
        """Returns the addresses that the page has requested."""
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]
