"""The service's configuration file: what a good one gives, and that everything wrong in a bad one is named."""

import subprocess
import sys
from pathlib import Path

import pytest
from random_networks import featurizer

from host_service.access import Token
from host_service.configuration import ConfigurationFileError, Devices, load_configuration
from hw.sources import ROOT

WHOLE = """
[server]
host = "0.0.0.0"
port = 8101
http_port = 8102
grace = 10

[models]
program = "net.npu"

[[devices]]
name = "rtl"
timeout = 60

[[devices]]
name = "timed:1.8ms"
count = 2

[limits]
queue = 100
message_bytes = 8000000

[[tokens]]
name = "cms"
secret = "0123456789abcdef"
models = ["tagger"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    featurizer(1).save(tmp_path / "net.npu")
    path = tmp_path / "service.toml"
    path.write_text(WHOLE)
    return path


def test_a_whole_file(file: Path):
    c = load_configuration(file)
    assert (c.server.host, c.server.port, c.server.http_port, c.server.grace) == ("0.0.0.0", 8101, 8102, 10.0)
    assert c.models.program == file.parent / "net.npu"
    assert c.devices == (Devices("rtl", 1, 60.0), Devices("timed:1.8ms", 2))
    assert (c.limits.queue, c.limits.message_bytes) == (100, 8_000_000)
    assert c.tokens == (Token("cms", "0123456789abcdef", ("tagger",)),)


def test_the_least_file(file: Path):
    file.write_text('models.program = "net.npu"')
    c = load_configuration(file)
    assert (c.server.port, c.devices, c.tokens) == (8001, (Devices(),), ())


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("[server]", "[sever]", "there is no [sever]; there are server, models, limits, tls, devices, tokens"),
        ("port = 8101", "prot = 8101", "server has no key 'prot'; it has host, port, http_port, grace, transport"),
        ("port = 8101", 'port = "8101"', "server.port is '8101': it must be a whole number"),
        ("port = 8101", "port = true", "server.port is True: it must be a whole number"),
        ("port = 8101", "port = 70000", "server.port is 70000: it must be 0 to 65535"),
        ("grace = 10", 'transport = "http"', "server.transport is 'http': it must be one of auto, grpc++, grpcio"),
        ("grace = 10", 'grace = "long"', "server.grace is 'long': it must be a number"),
        ('program = "net.npu"', "", "models needs either program or repository"),
        ('program = "net.npu"', 'program = "gone.npu"', "models.program: there is no"),
        ('program = "net.npu"', "program = 3", "models.program is 3: it must be a path"),
        ("count = 2", "count = 0", "devices[1].count is 0: it must be 1 or more"),
        ("count = 2", "number = 2", "devices[1] has no key 'number'"),
        ("queue = 100", "queue = 3", "limits.queue is 3: it must hold one request of 64 images"),
        ("message_bytes = 8000000", "message_bytes = 3000000000", "limits.message_bytes is 3000000000"),
        ('name = "cms"', "", "tokens[0] lacks 'name'"),
        ('secret = "0123456789abcdef"', 'secret = "short"', "tokens[0].secret has 5 characters"),
        ('models = ["tagger"]', 'models = "tagger"', "tokens[0].models is 'tagger': it must be a list of texts"),
        ("[limits]", '[tls]\ncertificate = "net.npu"\n[limits]', "tls needs both certificate and key"),
        ("[limits]", "[limits", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(file: Path, before: str, after: str, text: str):
    assert before in WHOLE
    file.write_text(WHOLE.replace(before, after, 1))
    with pytest.raises(ConfigurationFileError) as caught:
        load_configuration(file)
    assert text in str(caught.value)


def test_everything_wrong_is_named_at_once(file: Path):
    file.write_text(WHOLE.replace("queue", "cue").replace("grace", "graze"))
    with pytest.raises(ConfigurationFileError, match=r"no key 'graze'.*no key 'cue'"):
        load_configuration(file)


def test_the_secret_is_not_in_the_message(file: Path):
    file.write_text(WHOLE.replace("0123456789abcdef", "hush"))
    with pytest.raises(ConfigurationFileError) as caught:
        load_configuration(file)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(("good", "status"), [(True, 0), (False, 1)])
def test_the_command_checks_a_file(file: Path, good: bool, status: int):
    if not good:
        file.write_text("[sever]")
    command = [sys.executable, "-m", "host_service", "check", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == status
    assert ("is in order" in done.stdout) == good and ("error: " in done.stderr) != good


def test_the_files_of_the_documentation_are_right(file: Path):
    """Every TOML block of docs/service.md, with files where it says that there are some."""
    folder = file.parent
    (folder / "models").mkdir()
    for name in ("resnet50.npu", "resnet50.npz", "server.pem", "server.key", "clients.pem"):
        (folder / name).touch()
    blocks = [part.partition("```")[0] for part in (ROOT / "docs" / "service.md").read_text().split("```toml\n")[1:]]
    assert blocks
    for block in blocks:
        file.write_text(block)
        load_configuration(file)
