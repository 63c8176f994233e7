"""What the installer asks of a release and of a service, against services of every kind of configuration."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from deploy_archives import program, sample
from running_service import Running, serving

from driver.deploy.archive import MANIFEST, manifest_text, npz_bytes
from driver.deploy.check import check_answer, check_release
from driver.deploy.package import golden_sums
from driver.device import DeviceError
from host_service.configuration import configuration_of
from host_service.server import Service
from hw.isa import VERSION
from hw.program import ProgramError

SEED = 71
SECRET = "0123456789abcdef"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release's files, as far as the checks look at them."""
    folder = tmp_path / "release"
    jets = sample(SEED)
    (folder / "notebook").mkdir(parents=True)
    sums = golden_sums(program(SEED), jets.images)
    (folder / "notebook" / "jets.npz").write_bytes(npz_bytes({"images": jets.images, "sums": sums}))
    program(SEED).save(folder / "model" / "program.npu")
    (folder / MANIFEST).write_text(manifest_text({"isa": str(VERSION), "board": "sim-small"}, {}))
    return folder


def service(release: Path, **tables: object) -> Iterator[Running]:
    """The release's program on the golden model, with further ``tables`` of a configuration."""
    values = {"models": {"program": str(release / "model" / "program.npu")}, "devices": [{"name": "golden"}], **tables}
    return serving(lambda: Service.of(configuration_of(values, release)))


def settings(folder: Path, address: str, more: str = "") -> Path:
    """The configuration file of a service at ``address``."""
    path = folder / "quarkwave.toml"
    path.write_text(f'[server]\nhost = "0.0.0.0"\nport = {address.rpartition(":")[2]}\n{more}')
    return path


def unused() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_a_service_that_answers_rightly_passes(release: Path):
    with service(release) as running:
        found = check_answer(release, settings(release, running.address), seconds=60)
    assert found == "24 of 24 features equal the golden model's"


def test_a_service_with_another_program_fails(release: Path):
    with service(release) as running:
        program(SEED + 1).save(release / "model" / "program.npu")
        jets = sample(SEED)
        sums = golden_sums(program(SEED + 1), jets.images)
        (release / "notebook" / "jets.npz").write_bytes(npz_bytes({"images": jets.images, "sums": sums}))
        with pytest.raises(DeviceError, match=r"answers wrongly: \d+ of 24 features differ"):
            check_answer(release, settings(release, running.address), seconds=60)


def test_a_token_of_the_settings_opens_the_service(release: Path):
    with service(release, tokens=[{"name": "installer", "secret": SECRET}]) as running:
        path = settings(release, running.address, f'[[tokens]]\nname = "installer"\nsecret = "{SECRET}"\n')
        assert check_answer(release, path, seconds=60).startswith("24 of 24")


def test_a_service_that_wants_tls_is_only_looked_at(release: Path, tmp_path: Path):
    certificate = trustme.CA().issue_cert("localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    both = str(tmp_path / "both.pem")
    with service(release, tls={"certificate": both, "key": both}) as running:
        path = settings(release, running.address, f'[tls]\ncertificate = "{both}"\nkey = "{both}"\n')
        assert "with TLS it was not asked" in check_answer(release, path, seconds=60)


@pytest.mark.parametrize("more", ["", '[tls]\ncertificate = "a"\nkey = "b"\n'])
def test_nobody_there_is_an_error(release: Path, more: str):
    with pytest.raises(DeviceError, match="look at the service's log"):
        check_answer(release, settings(release, unused(), more), seconds=0)


def test_a_whole_release_passes(release: Path):
    assert check_release(release) == f"{program(SEED).name} for sim-small, 3 layers"


def test_a_damaged_program_fails(release: Path):
    path = release / "model" / "program.npu"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ProgramError, match="damaged or cut short"):
        check_release(release)


def test_a_release_for_another_instruction_set_fails(release: Path):
    (release / MANIFEST).write_text(manifest_text({"isa": str(VERSION + 1), "board": "sim-small"}, {}))
    with pytest.raises(DeviceError, match=f"for instruction set {VERSION + 1}, its software has {VERSION}"):
        check_release(release)


def test_jets_of_another_program_fail(release: Path):
    jets = sample(SEED)
    sums = golden_sums(program(SEED), jets.images)[:, :7]
    (release / "notebook" / "jets.npz").write_bytes(npz_bytes({"images": jets.images, "sums": sums}))
    with pytest.raises(ProgramError, match="do not fit the program"):
        check_release(release)
