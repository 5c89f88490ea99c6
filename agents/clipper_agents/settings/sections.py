"""The sections of clipper.toml: every key, its bound and its default, said once."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the sections: an unknown key is an error."""


class ProcessSection(Section, frozen=True):
    """Base of the sections of processes."""

    metrics_port: Port = 0
    """Port of the metrics of the first process, the next process has the next port; 0: free ports."""
    metrics_address: str = "127.0.0.1"
    """Address on which metrics are served, `0.0.0.0` for other machines."""


class KafkaSection(Section, frozen=True):
    """How to reach Kafka, and the topics there. The password has no key: it comes from `KAFKA_SASL_PASSWORD` only."""

    bootstrap: str | None = None
    """`host:port`, several separated by commas; absent: `up` starts an embedded broker."""
    security_protocol: str = "PLAINTEXT"
    """`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`."""
    sasl_mechanism: str | None = None
    """`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER` or `GSSAPI`."""
    username: str | None = None
    """SASL user name, or the id of an OpenID Connect client whose secret is the password."""
    token_url: str | None = None
    """Token endpoint of an OpenID Connect server, for OAUTHBEARER by client credentials."""
    token_scope: str | None = None
    """What is asked of it."""
    token_provider: str | None = None
    """Instead of it `aws-msk-iam`, or `module:function` of a function that returns a token."""
    sasl_extensions: str | None = None
    """What a broker is told with a token, `logicalCluster=lkc-1,identityPoolId=pool-2`."""
    kerberos_service: str | None = None
    """First part of the brokers' principal, for GSSAPI; absent: `kafka`."""
    cafile: str | None = None
    """PEM file of the authorities that may sign the brokers' certificates."""
    certfile: str | None = None
    """PEM file of the client's certificate."""
    keyfile: str | None = None
    """PEM file of the client's key."""
    prefix: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "clipper"
    """First part of every topic's name; two deployments on one cluster have two prefixes."""
    partitions: Count = 4
    """Partitions of queries, predictions, feedback and outputs: the most router processes there can be."""
    replication: Count | None = None
    """Copies of each partition, 3 on a cluster that should survive a broker; absent: the brokers' default."""
    create_topics: bool = True
    """Whether topics that are missing are created; else they are named, and somebody else creates them."""
    rack: str | None = None
    """Where this process is, as the brokers' `broker.rack` says it: it reads from a copy there, if there is one."""


class BrokerSection(Section, frozen=True):
    """The embedded broker, used when there is no `kafka.bootstrap`."""

    data_dir: str | None = None
    """Where its log is kept; absent: a temporary folder, and everything is forgotten at the end."""
    port: Port | None = None
    """Port on 127.0.0.1; absent or 0: a free one."""
    heap_mib: Annotated[int, msgspec.Meta(ge=128)] = 512
    """Java heap, in MiB."""


class RouterSection(ProcessSection, frozen=True):
    """The router processes."""

    processes: Count = 1
    """How many that `up` starts, at most `kafka.partitions`."""
    data_dir: str | None = None
    """Folder of the tables, one below it a process; absent: `data/router`, `data/PREFIX/router` with a `kafka.prefix`,
    or temporary with a temporary broker."""
    max_in_flight: Count = 20_000
    """Queries that a process has open at most; beyond that it stops reading."""
    horizon_s: Seconds = 3600.0
    """How long after its query a feedback still counts, in seconds."""
    max_contexts: Annotated[int, msgspec.Meta(ge=8)] = 2_000_000
    """Contexts that a partition remembers, of all applications; beyond that, those without feedback for the longest
    are forgotten, an eighth at a time."""
    cache_mib: Annotated[float, msgspec.Meta(ge=0)] = 32.0
    """Budget of the prediction cache, in MiB a partition; 0: no cache."""


class HostSection(ProcessSection, frozen=True):
    """The model hosts, one process for each replica of a version that is not colocated."""

    data_dir: str | None = None
    """Folder for what a host keeps; absent: `data/host`, likewise."""


class StewardSection(ProcessSection, frozen=True):
    """The steward, which compares versions and makes the changes that an application's `rollout` allows."""

    enabled: bool = True
    """Whether `up` starts one."""
    max_queries: Count = 200_000
    """Queries that it remembers at most until their feedback comes, some kilobytes each."""


class GatewaySection(ProcessSection, frozen=True):
    """The gateway, which serves HTTP and gRPC in front of the topics."""

    enabled: bool = True
    """Whether `up` starts one, where the extra `gateway` is installed."""
    processes: Count = 1
    """How many `up` starts behind the same ports, among which the system spreads connections. Bounds hold for each. Of
    several none has the console: a session is in one process."""
    address: str = "127.0.0.1"
    """Address of both servers, `0.0.0.0` for other machines."""
    port: Port = 8080
    """Port of HTTP; 0: a free one."""
    grpc_port: Port = 8081
    """Port of gRPC; 0: a free one."""
    keys_file: str | None = None
    """File of the digests of API keys, which `keys create` writes; absent: no key is asked for."""
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Rows and feedbacks a second of each caller whose key or token states no rate; absent: no bound."""
    trusted_proxies: list[str] = []
    """Addresses and networks (`10.0.0.0/8`) of proxies whose `X-Forwarded-For` says for whom they ask."""
    insecure: bool = False
    """Whether an address that other machines reach may be served without keys and tokens."""
    tls_certfile: str | None = None
    """PEM file of the servers' certificate, with `tls_keyfile`; absent: no TLS."""
    tls_keyfile: str | None = None
    """PEM file of the certificate's key."""
    oidc_issuer: str | None = None
    """Issuer of OpenID Connect whose tokens are accepted, with `oidc_audience`."""
    oidc_audience: str | None = None
    """Audience that a token must be for."""
    oidc_jwks_url: str | None = None
    """Where the issuer's public keys are; absent: where the issuer's discovery document says."""
    cors_origins: list[str] = []
    """Origins whose pages may call from a browser, `https://console.example`."""
    max_in_flight: Count = 1_000
    """Calls of one application that wait for an answer at once; a further one is answered by 429."""
    max_body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 4 * 1024 * 1024
    """Largest body of a request, in bytes."""
    timeout_s: Seconds = 30.0
    """Longest wait for an answer of an application without an objective, in seconds."""
    drain_s: Seconds = 20.0
    """At its end it waits so long for the answers of open calls, in seconds."""
    console: bool = True
    """Whether it serves the operator's console, at `/console`."""
    console_dir: str | None = None
    """Folder of the console's history, one below it a gateway, of at most 50 MiB; absent: `data/gateway`, likewise."""


class SupervisorSection(ProcessSection, frozen=True):
    """The process that keeps the others running: `up`, or `worker hosts`."""


class ModelsSection(Section, frozen=True):
    """Which models a process may load, whoever declares them."""

    allowed_modules: list[str] | None = None
    """Packages (`acme.models`), exact modules (`acme.models:`) and types that a skops file may contain. Without
    this key and the next: what this file's own `[[model]]` tables name, and nothing else."""
    allowed_locations: list[str] | None = None
    """Directories and files (`models`, `/srv/models`) and URIs (`s3://acme/models`, `http://models:8080`)."""
    unpickle: bool = False
    """Whether joblib and mlflow may be used: they unpickle, which runs whatever the model file says."""
    cache_dir: str | None = None
    """Folder that model files from elsewhere are kept in; absent: clipper-stream/models in the user's cache folder."""
