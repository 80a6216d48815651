"""Command lines of etcd and the API server, the same for the node and for the API server of integration tests.

Feature gates and admission plugins stay at Kubernetes' defaults: what works here must work on any cluster.
"""

from dataclasses import dataclass
from pathlib import Path

from assistant_cluster.certificates import Authority, KeyPair, service_account_keys
from assistant_cluster.layout import CLUSTER_DOMAIN

ISSUER = f"https://kubernetes.default.svc.{CLUSTER_DOMAIN}"
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
"""


@dataclass(frozen=True)
class ControlPlane:
    """Where one etcd and one API server live."""

    folder: Path
    pki: Path
    logs: Path
    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    service_range: str
    api_service_ip: str
    # What the Service `kubernetes` points at. It must not be a loopback address, so it may differ from `address`.
    advertised: str

    @property
    def authority(self) -> Authority:
        """The cluster's certificate authority."""
        return Authority(self.pki)

    @property
    def service_account_keys(self) -> KeyPair:
        """Keys of ServiceAccount tokens."""
        return service_account_keys(self.pki)

    @property
    def url(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.api_port}"

    def etcd(self, program: list[str]) -> list[str]:
        """Etcd on the loopback interface, for holders of a client certificate only."""
        server = self.authority.server("etcd", ["127.0.0.1", "localhost"])
        url = f"https://127.0.0.1:{self.etcd_port}"
        peer = f"https://127.0.0.1:{self.etcd_peer_port}"
        return [
            *program,
            "--name=default",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--client-cert-auth=true",
            f"--trusted-ca-file={self.authority.files.certificate}",
            f"--cert-file={server.certificate}",
            f"--key-file={server.key}",
            "--peer-client-cert-auth=true",
            f"--peer-trusted-ca-file={self.authority.files.certificate}",
            f"--peer-cert-file={server.certificate}",
            f"--peer-key-file={server.key}",
            "--logger=zap",
            "--log-level=warn",
        ]

    def api_server(self, program: list[str], *, bind_address: str) -> list[str]:
        """The API server: RBAC, audit log of every request's metadata, ServiceAccount issuer with discovery."""
        authority = self.authority.files
        etcd = self.authority.client("etcd-client")
        kubelet = self.authority.client("kube-apiserver-kubelet-client", "system:masters")
        serving = self.authority.server(
            "kube-apiserver",
            [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                f"kubernetes.default.svc.{CLUSTER_DOMAIN}",
                "localhost",
                "127.0.0.1",
                self.address,
                self.api_service_ip,
            ],
        )
        tokens = self.service_account_keys
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(AUDIT_POLICY)
        return [
            *program,
            f"--advertise-address={self.advertised}",
            f"--bind-address={bind_address}",
            f"--secure-port={self.api_port}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.certificate}",
            f"--etcd-servers=https://127.0.0.1:{self.etcd_port}",
            f"--etcd-cafile={authority.certificate}",
            f"--etcd-certfile={etcd.certificate}",
            f"--etcd-keyfile={etcd.key}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={self.service_range}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-jwks-uri={ISSUER}/openid/v1/jwks",
            f"--service-account-key-file={tokens.certificate}",
            f"--service-account-signing-key-file={tokens.key}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.logs / 'audit.log'}",
            "--audit-log-maxsize=50",
            "--audit-log-maxbackup=2",
            "--profiling=false",
        ]
