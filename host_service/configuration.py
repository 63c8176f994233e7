"""The service's one configuration file (TOML), checked: every wrong key or value is named, all of them at once.

Every key is optional but for the models: either ``program`` (with ``classifier``) or ``repository``. Paths are relative to the file.
docs/service.md shows a whole file.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from driver.runtime import TIMEOUT
from host_service.access import Token
from host_service.models import MAX_BATCH
from host_service.scheduler import QUEUE

TRANSPORTS = ("auto", "grpc++", "grpcio")
"""What may receive the calls: see ``host_service.transport``."""


class ConfigurationFileError(ValueError):
    """Something in the configuration is wrong; the message names all of it."""


@dataclass(frozen=True)
class Server:
    """Where to listen, and with what.

    ``http_port``: page and metrics; -1: none; ``grace``: seconds that running requests get at the end; ``transport``: one of TRANSPORTS.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    http_port: int = 8002
    grace: float = 60.0
    transport: str = TRANSPORTS[0]


@dataclass(frozen=True)
class Models:
    """What is served: one network's files, or a repository folder."""

    program: Path | None = None
    classifier: Path | None = None
    repository: Path | None = None


@dataclass(frozen=True)
class Devices:
    """``count`` devices named ``name``, each in a process of its own; a name that is several NPUs is one device."""

    name: str = "golden"
    count: int = 1
    timeout: float = TIMEOUT


@dataclass(frozen=True)
class Limits:
    """Images that may wait, and the bytes of a message; the protocol's own limit is 2 GiB - 1."""

    queue: int = QUEUE
    message_bytes: int = 2**31 - 1


@dataclass(frozen=True)
class Tls:
    """PEM files. With ``client_ca`` clients must show a certificate that it signed."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    def for_http(self) -> ssl.SSLContext | None:
        """The same for the HTTP port; None without TLS. Raises OSError when the files are no certificate and its key."""
        if self.certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@dataclass(frozen=True)
class Configuration:
    """The whole file."""

    server: Server = field(default_factory=Server)
    models: Models = field(default_factory=Models)
    devices: tuple[Devices, ...] = (Devices(),)
    limits: Limits = field(default_factory=Limits)
    tls: Tls = field(default_factory=Tls)
    tokens: tuple[Token, ...] = ()


TABLES: dict[str, type] = {"server": Server, "models": Models, "limits": Limits, "tls": Tls}
LISTS: dict[str, type] = {"devices": Devices, "tokens": Token}


def load_configuration(path: Path) -> Configuration:
    """Read and check the file. Raises ConfigurationFileError or OSError."""
    try:
        values = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationFileError(f"{path} is no TOML: {error}") from error
    return configuration_of(values, path.parent, str(path))


def configuration_of(values: Mapping[str, Any], folder: Path, source: str = "the configuration") -> Configuration:
    """Check the values of a file. Raises ConfigurationFileError with everything that is wrong."""
    wrong: list[str] = []
    parts: dict[str, Any] = {}
    for key, value in values.items():
        if key in TABLES:
            parts[key] = _table(TABLES[key], key, value, folder, wrong)
        elif key in LISTS:
            rows = value if isinstance(value, list) else [value]
            parts[key] = tuple(_table(LISTS[key], f"{key}[{n}]", row, folder, wrong) for n, row in enumerate(rows))
        else:
            wrong.append(f"there is no [{key}]; there are {', '.join([*TABLES, *LISTS])}")
    if not wrong:
        configuration = Configuration(**parts)
        wrong += _contradictions(configuration)
        if not wrong:
            return configuration
    raise ConfigurationFileError(f"{source}: " + "; ".join(wrong))


def _table(kind: type, name: str, values: Any, folder: Path, wrong: list[str]) -> Any:
    """``values`` as ``kind``; what is wrong goes to ``wrong``."""
    if not isinstance(values, Mapping):
        wrong.append(f"{name} is no table")
        return None
    hints, known = get_type_hints(kind), {f.name: f for f in fields(kind)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            wrong.append(f"{name} has no key {key!r}; it has {', '.join(known)}")
            continue
        try:
            arguments[key] = _value(hints[key], value, folder)
        except ValueError as error:
            wrong.append(f"{name}.{key} is {value!r}: {error}")
    missing = [key for key in ("name", "secret") if kind is Token and key not in values]
    wrong += [f"{name} lacks {key!r}" for key in missing]
    return kind(**arguments) if not missing else None


def _value(hint: Any, value: Any, folder: Path) -> Any:
    if hint is bool or isinstance(value, bool):
        if hint is bool and isinstance(value, bool):
            return value
    elif hint is float and isinstance(value, (int, float)):
        return float(value)
    elif hint in (int, str) and isinstance(value, hint):
        return value
    elif hint == Path | None and isinstance(value, str):
        return folder / value
    elif hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", Path | None: "a path"}
    raise ValueError(f"it must be {names.get(hint, 'a list of texts')}")


def _contradictions(c: Configuration) -> list[str]:
    ports = [(name, getattr(c.server, name), low) for name, low in (("port", 0), ("http_port", -1))]
    wrong = [
        f"server.{name} is {port}: it must be {low} to 65535" for name, port, low in ports if not low <= port < 65536
    ]
    if c.server.transport not in TRANSPORTS:
        wrong.append(f"server.transport is {c.server.transport!r}: it must be one of {', '.join(TRANSPORTS)}")
    if (c.models.program is None) == (c.models.repository is None):
        wrong.append("models needs either program or repository")
    if c.models.repository is not None and c.models.classifier is not None:
        wrong.append("models.classifier goes with models.program; in a repository it stands beside each program")
    if not c.devices:
        wrong.append("devices is empty: name one")
    for number, device in enumerate(c.devices):
        if device.count < 1:
            wrong.append(f"devices[{number}].count is {device.count}: it must be 1 or more")
        if device.timeout < 0:
            wrong.append(f"devices[{number}].timeout is {device.timeout}: it must be a time in seconds")
    if c.limits.queue < MAX_BATCH:
        wrong.append(f"limits.queue is {c.limits.queue}: it must hold one request of {MAX_BATCH} images")
    if not 1 <= c.limits.message_bytes < 2**31:
        wrong.append(f"limits.message_bytes is {c.limits.message_bytes}: it must be 1 to {2**31 - 1}")
    if (c.tls.certificate is None) != (c.tls.key is None):
        wrong.append("tls needs both certificate and key")
    if c.tls.client_ca is not None and c.tls.certificate is None:
        wrong.append("tls.client_ca needs certificate and key")
    for number, token in enumerate(c.tokens):
        if len(token.secret) < 16:
            wrong.append(f"tokens[{number}].secret has {len(token.secret)} characters: use 16 or more, random ones")
    paths: list[tuple[str, Any, str]] = [("models", c.models, name) for name in ("program", "classifier", "repository")]
    paths += [("tls", c.tls, name) for name in ("certificate", "key", "client_ca")]
    for table, part, name in paths:
        path = getattr(part, name)
        if path is not None and not path.exists():
            wrong.append(f"{table}.{name}: there is no {path}")
    return wrong
