"""Apache Kafka with listeners that ask who comes: passwords, tokens and certificates, with and without TLS."""

import base64
import json
import time
from pathlib import Path

from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.servers.certificates import Authority
from tests.servers.kafka import KafkaBroker
from tests.servers.ports import free_port

USER, PASSWORD = "spanmill", "pass-0123456789"

MODULES = "org.apache.kafka.common.security"
SASL = f"""
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
%(listener)s.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";
%(listener)s.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;
%(listener)s.oauthbearer.sasl.jaas.config={MODULES}.oauthbearer.OAuthBearerLoginModule required \
  unsecuredLoginStringClaim_sub="broker";
"""
TLS = """
ssl.keystore.type=PEM
ssl.keystore.location=%(keystore)s
ssl.truststore.type=PEM
ssl.truststore.location=%(truststore)s
listener.name.mutual.ssl.client.auth=required
"""


class SecureKafka:
    """A broker, its authority, and the addresses of its listeners; `broker` itself has one that asks nothing."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "ca")
        self.broker = KafkaBroker(directory)
        ports = {name: free_port() for name in ("PASSWORDS", "ENCRYPTED", "MUTUAL")}
        self.passwords, self.encrypted, self.mutual = (f"127.0.0.1:{port}" for port in ports.values())
        certificate, key = self.authority.certify("broker", "IP:127.0.0.1")
        keystore = directory / "keystore.pem"
        keystore.write_text(key.read_text() + certificate.read_text())
        protocols = {"PASSWORDS": "SASL_PLAINTEXT", "ENCRYPTED": "SASL_SSL", "MUTUAL": "SSL"}
        properties = "".join(SASL % {"listener": f"listener.name.{name}"} for name in ("passwords", "encrypted"))
        properties += TLS % {"keystore": keystore, "truststore": self.authority.certificate}
        self.broker.format({name: (ports[name], protocol) for name, protocol in protocols.items()}, properties)

    def start(self) -> None:
        """Start it, with the user that SCRAM knows."""
        self.broker.start()
        admin = self.broker.admin()
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        upsertion = UserScramCredentialUpsertion(USER, scram, PASSWORD.encode())
        for done in admin.alter_user_scram_credentials([upsertion]).values():
            done.result(30)

    def stop(self) -> None:
        """Stop it by its process id."""
        self.broker.stop()


def token(expires_in_s: float = 3600.0, subject: str = USER) -> str:
    """An unsecured JSON Web Signature (RFC 7515 §A.5), which such a broker takes."""
    now = time.time()
    claims = {"sub": subject, "iat": now, "exp": now + expires_in_s}
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims))
    return b".".join([*parts, b""]).decode()
