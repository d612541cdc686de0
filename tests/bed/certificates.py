"""A certificate authority for one test run, made with openssl."""

import functools
import ssl
import subprocess
from pathlib import Path

DAYS = "2"


class Certificates:
    """Certificates below a folder; `ca` signed each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.pem"
        self._ca_key = folder / "ca.key"
        subject = ["-subj", "/CN=test authority"]
        self._openssl("req", "-x509", *self._new_key(self._ca_key), *subject, "-out", str(self.ca))

    @functools.cache  # noqa: B019  # lives as long as the test run
    def pem(self, name: str) -> Path:
        """The certificate for a DNS name, or an address, with its key, in one file."""
        key, request, signed, both = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt", "pem"))
        extensions = self.folder / f"{name}.ext"
        kind = "IP" if name.replace(".", "").isdigit() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\n")
        self._openssl("req", "-new", *self._new_key(key), "-subj", f"/CN={name}", "-out", str(request))
        authority = ["-CA", str(self.ca), "-CAkey", str(self._ca_key), "-CAcreateserial"]
        self._openssl(
            "x509",
            "-req",
            "-in",
            str(request),
            *authority,
            "-days",
            DAYS,
            "-extfile",
            str(extensions),
            "-out",
            str(signed),
        )
        both.write_text(signed.read_text() + key.read_text())
        return both

    def server(self, name: str) -> ssl.SSLContext:
        """A server's side of TLS with the certificate for this name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem(name))
        return context

    @staticmethod
    def _new_key(file: Path) -> list[str]:
        return [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            DAYS,
            "-keyout",
            str(file),
        ]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
