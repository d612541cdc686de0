"""TLS files that cannot be used are complaints of the configuration: which key, which rule, which file."""

import subprocess
from pathlib import Path

import pytest

from healthagent.config import ConfigError, load
from tests.agent_yaml import loaded, written
from tests.bed.certificates import Certificates
from tests.bed.command import ran

PASSPHRASE = "pass:correct horse"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good certificate and key, and with everything that goes wrong with such files."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "other").mkdir()
    ours, others = Certificates(folder), Certificates(folder / "other")
    ours.pem("good")
    others.pem("good")
    certificate, key = (folder / "good.crt").read_text(), (folder / "good.key").read_text()
    (folder / "other.key").write_text((folder / "other" / "good.key").read_text())
    (folder / "empty").write_text("")
    (folder / "text").write_text("not yet issued\n")
    (folder / "half.crt").write_text(certificate[: len(certificate) // 2])
    (folder / "half.key").write_text(key[: len(key) // 2])
    (folder / "chain.crt").write_text(certificate + ours.ca.read_text())
    (folder / "broken-chain.crt").write_text(certificate + certificate[: len(certificate) // 2])
    openssl("genrsa", "-out", str(folder / "rsa.key"), "2048")
    openssl(
        "ec",
        "-in",
        str(folder / "good.key"),
        "-aes256",
        "-passout",
        PASSPHRASE,
        "-out",
        str(folder / "enc.key"),
    )
    openssl("x509", "-in", str(folder / "good.crt"), "-outform", "DER", "-out", str(folder / "der.crt"))
    weak = (
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-keyout",
        str(folder / "weak.key"),
        "-out",
        str(folder / "weak.crt"),
    )
    openssl("req", "-x509", *weak, "-subj", "/CN=good")
    return folder


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


def configured(files: Path, **keys: str) -> str:
    lines = "".join(f"  {key}: {files / name}\n" for key, name in keys.items())
    return f"peers: [{{name: pg2, url: https://pg2:8008}}]\ntls:\n{lines}"


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"cert": "good.crt", "key": "good.key"}, id="a pair"),
        pytest.param({"cert": "good.pem", "key": "good.pem"}, id="both in one file"),
        pytest.param({"cert": "chain.crt", "key": "good.key", "ca": "chain.crt"}, id="a chain"),
        pytest.param({"ca": "ca.pem"}, id="an authority for the peers only"),
        pytest.param(
            {"cert": "good.crt", "key": "good.key", "client_ca": "ca.pem"}, id="an authority of callers"
        ),
    ],
)
def test_what_can_be_used_is_no_problem(files: Path, tmp_path: Path, keys: dict[str, str]) -> None:
    assert loaded(tmp_path, configured(files, **keys)).warnings == ()


NO_CERTIFICATE, NO_KEY = "must hold a certificate in PEM", "must hold a private key in PEM"
GOOD = {"cert": "good.crt", "key": "good.key"}


@pytest.mark.parametrize(
    ("keys", "complaints"),
    [
        pytest.param({"ca": "text"}, {"ca": NO_CERTIFICATE}, id="an authority that is none, for https peers"),
        pytest.param({"ca": "empty"}, {"ca": NO_CERTIFICATE}, id="an empty authority"),
        pytest.param({"ca": "good.key"}, {"ca": NO_CERTIFICATE}, id="a key for an authority"),
        pytest.param({"ca": "missing"}, {"ca": "cannot be read: No such file or directory"}, id="no file"),
        pytest.param({"ca": "other"}, {"ca": "cannot be read: Is a directory"}, id="a folder"),
        pytest.param(
            GOOD | {"client_ca": "text"},
            {"client_ca": NO_CERTIFICATE},
            id="the good certificate is not blamed",
        ),
        pytest.param(
            {"cert": "good.key", "key": "good.crt"}, {"cert": NO_CERTIFICATE, "key": NO_KEY}, id="exchanged"
        ),
        pytest.param({"cert": "text", "key": "good.key"}, {"cert": NO_CERTIFICATE}, id="no certificate"),
        pytest.param({"cert": "der.crt", "key": "good.key"}, {"cert": NO_CERTIFICATE}, id="DER"),
        pytest.param(
            {"cert": "half.crt", "key": "good.key"}, {"cert": NO_CERTIFICATE}, id="half a certificate"
        ),
        pytest.param(
            {"cert": "broken-chain.crt", "key": "good.key"}, {"cert": NO_CERTIFICATE}, id="half a chain"
        ),
        pytest.param({"cert": "good.crt", "key": "text"}, {"key": NO_KEY}, id="no key"),
        pytest.param({"cert": "good.crt", "key": "half.key"}, {"key": NO_KEY}, id="half a key"),
        pytest.param(
            {"cert": "good.crt", "key": "other.key"},
            {"key": "must be the key of the certificate in tls.cert ({files}/good.crt)"},
            id="a key of another certificate",
        ),
        pytest.param(
            {"cert": "good.crt", "key": "rsa.key"},
            {"key": "must be the key of the certificate in tls.cert ({files}/good.crt)"},
            id="a key of another kind",
        ),
        pytest.param(
            {"cert": "good.crt", "key": "enc.key"},
            {"key": "must not be encrypted: nobody could give the passphrase"},
            id="an encrypted key",
        ),
        pytest.param(
            {"cert": "weak.crt", "key": "weak.key"},
            {"cert": "must be usable with its key; OpenSSL says: ee key too small"},
            id="a key that is too short",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    files: Path, tmp_path: Path, keys: dict[str, str], complaints: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, configured(files, **keys))
    place = {key: f"{tmp_path}/agent.yaml:{line}: tls.{key}" for line, key in enumerate(keys, 3)}
    assert caught.value.problems == tuple(
        f"{place[key]}: {rule.format(files=files)}, got '{files / keys[key]}'"
        for key, rule in complaints.items()
    )


def test_a_pair_from_two_sources_is_complained_of_once(files: Path, tmp_path: Path) -> None:
    file = written(tmp_path, f"tls: {{cert: {files}/good.crt}}")
    with pytest.raises(ConfigError) as caught:
        load(file, environment={"HEALTHAGENT_TLS_KEY": f"{files}/other.key"})
    [problem] = caught.value.problems
    assert problem.startswith("HEALTHAGENT_TLS_KEY: must be the key of the certificate in tls.cert")


@pytest.mark.parametrize("command", [("config", "check"), ("run",)], ids=" ".join)
def test_it_ends_before_it_begins(files: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Exit code 2, after which systemd does not start it again for ever."""
    done = ran(*command, "-c", str(written(tmp_path, configured(files, ca="text"))))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path}/agent.yaml:3: tls.ca: {NO_CERTIFICATE}, got '{files}/text'\n"
