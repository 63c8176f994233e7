"""A machine on which archives are installed: a prefix, a stand-in for systemctl that starts real services, and what a user can see."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from deploy_archives import sample
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

SYSTEMCTL = Path(__file__).with_name("systemctl")
PROGRAMS = Path(os.sys.executable).parent
"""Where uv is."""


class Machine:
    """An empty prefix in ``folder``, whose service takes the device ``golden`` and a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix, self.units = folder, folder / "opt", folder / "units"
        self.settings = self.prefix / "quarkwave.toml"
        shutil.copy(SYSTEMCTL, folder / "systemctl")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "PATH": f"{folder}:{PROGRAMS}:{os.environ['PATH']}",
            "UV_SYSTEM_CERTS": "1",
        }

    def configure(self, release: Path, device: str = "golden") -> None:
        """Write the settings, as a user does before the first installation."""
        text = (release / "quarkwave.toml").read_text()
        settings = {
            '"board"': f'"{device}"',
            '"0.0.0.0"': '"127.0.0.1"',
            "8001": self.address.split(":")[1],
            "8002": "-1",
        }
        for old, new in settings.items():
            text = text.replace(f" = {old}", f" = {new}")
        self.prefix.mkdir(exist_ok=True)
        self.settings.write_text(text)

    def command(self, release: Path, *options: str, service: bool = True) -> list[str]:
        """The installer of ``release``; without ``service`` as an ordinary user calls it."""
        units = ["--units", str(self.units)] if service else []
        return [str(release / "install.sh"), "--prefix", str(self.prefix), *units, *options]

    def install(
        self, release: Path, *options: str, service: bool = True, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the installer of ``release``."""
        done = subprocess.run(
            self.command(release, *options, service=service),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.log()}"
        return done

    def systemctl(self, *arguments: str, **environment: str) -> None:
        """As the user asks it."""
        subprocess.run([self.folder / "systemctl", *arguments], env={**self.environment, **environment}, check=True)

    def calls(self) -> list[str]:
        """What the installer has asked of systemctl, so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def log(self) -> str:
        """The service's."""
        path = self.folder / "log"
        return path.read_text()[-3000:] if path.exists() else ""

    def link(self, name: str) -> Path | None:
        """Where ``current`` or ``previous`` points to."""
        path = self.prefix / name
        return path.resolve() if path.is_symlink() else None

    def python(self, *arguments: str, **environment: str) -> str:
        """Run the Python of the current release, away from any checkout; its output."""
        command = [str(self.prefix / "current" / "venv" / "bin" / "python"), *arguments]
        environment = {**self.environment, **environment}
        return subprocess.run(
            command, cwd=self.prefix, env=environment, capture_output=True, text=True, check=True
        ).stdout

    def answer(self, seed: int) -> dict[str, NDArray[Any]]:
        """What the service answers to the image of the release ``seed``, to a plain Triton client."""
        image = sample(seed).images[:1]
        tensor = InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        client = InferenceServerClient(self.address)
        try:
            answer = client.infer("tagger", [tensor], client_timeout=60)
        finally:
            client.close()
        return {name: answer.as_numpy(name)[0] for name in ("feature_sums", "features", "probabilities")}

    def sums(self, seed: int) -> list[int]:
        """The integers of that answer."""
        return np.asarray(self.answer(seed)["feature_sums"]).tolist()
