"""The keys of a configuration file: one row each, with its kind and one sentence about it."""

from __future__ import annotations

from typing import Any

from s3mount_agent.config.configuration import Configuration, Entry, Layer, Metrics, WhenBusy
from s3mount_agent.config.document import Node, Source
from s3mount_agent.config.schema import (
    Built,
    Choice,
    Duration,
    Key,
    ListOf,
    MapOf,
    Number,
    Parsed,
    Section,
    Text,
    Truth,
    flag_keys,
)
from s3mount_agent.core.buckets import parse_bucket
from s3mount_agent.core.directory import parse_directory
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.roles import Mode, OnFailure, Role
from s3mount_agent.mountpoint.command_line import parse_options
from s3mount_agent.mountpoint.wanted import Install

_ROLES = Choice(tuple(role.value for role in Role))
_WHEN_BUSY = Choice(tuple(each.value for each in WhenBusy))
_ON_FAILURE = Choice(tuple(each.value for each in OnFailure))
_NAME = Text("a name", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# What mount-s3 and the SDK under it read, and nothing that could change another program: no
# LD_PRELOAD, no PATH. Secrets belong into /etc/s3mount-agent/environment, which only root reads.
ENVIRONMENT = Choice(
    (
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_MAX_ATTEMPTS",
        "AWS_CA_BUNDLE",
        "AWS_PROFILE",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_USE_FIPS_ENDPOINT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "MOUNTPOINT_LOG",
    )
)
_TEXTFILE = r"/(?:var/lib|run)(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+\.prom"
# Every queue is tried in every role: a file from outside must not make that endless.
_MOST_QUEUES = 100
_PLAIN_VALUE = Text("a value in one line of printable ASCII", r"[ -~]{0,1000}")

_OPTIONS = (
    Key("options", Parsed("mount-s3's options", parse_options), "mount-s3's options in one text"),
    *flag_keys(),
)


def _layer(values: dict[str, Any]) -> Layer:
    flags = {name.replace("_", "-"): value for name, value in values.items() if name != "options"}
    return Layer(values.get("options"), flags)


_LAYER = Built(Section(_OPTIONS), _layer)
_OWN_KEYS = (
    Key(
        "bucket",
        Parsed("a bucket", parse_bucket),
        "a bucket, an access point (alias or ARN), or s3://bucket/prefix/",
        required=True,
    ),
    Key("directory", Parsed("a directory", parse_directory), "where to mount it", required=True),
    Key("on", ListOf(_ROLES), "the roles of the nodes that get it (default: all)"),
    Key("queues", ListOf(_NAME), "the queues or login pools whose nodes get it (default: all)"),
    Key("roles", MapOf(_LAYER, _ROLES), "options that are different on a role"),
    Key("owner", _NAME, "the user whose files they seem to be (default: the cluster's user)"),
    Key("weight", Number(1, 1000), "its share of memory and bandwidth beside the others (1)"),
    Key("when_busy", _WHEN_BUSY, "wait, lazy or fail: if it must change while it is in use"),
    Key("on_failure", _ON_FAILURE, "whether a bootstrap fails with it (default: by role)"),
)

MOUNT = Section((*_OWN_KEYS, *_OPTIONS))


def _entry(values: dict[str, Any]) -> Entry:
    own = {key.name for key in _OWN_KEYS}
    entry = Entry(
        bucket=values["bucket"],
        directory=values["directory"],
        base=_layer({name: value for name, value in values.items() if name not in own}),
        by_role={Role(role): layer for role, layer in values.get("roles", {}).items()},
        on=tuple(map(Role, values.get("on", ()))),
        queues=values.get("queues", ()),
        owner=values.get("owner"),
        weight=values.get("weight", 1),
        when_busy=WhenBusy(values["when_busy"]) if "when_busy" in values else None,
        on_failure=OnFailure(values["on_failure"]) if "on_failure" in values else None,
    )
    for role in entry.on or Role:
        entry.mount(role)
    return entry


INSTALL = Section(
    (
        Key("url", Text("a URL", r"https?://[!-~]+"), "a mirror of mount-s3's releases"),
        Key(
            "version",
            Text("a version", r"\d+\.\d+\.\d+|latest"),
            "which release to install, on a node that has none",
        ),
        Key(
            "fingerprints",
            ListOf(Text("a key's fingerprint", r"[0-9A-Fa-f]{40}")),
            "the keys that packages may be signed with",
        ),
    )
)
HEALTH = Section(
    (
        Key("look_every", Duration(5, 3600), "how often to ask whether each mount answers (60s)"),
        Key("check_s3_every", Duration(5, 86400), "how often to list a mount, as S3 allows (5m)"),
        Key("hung_after", Duration(10, 3600), "the silence after which a mount is ended (30s)"),
        Key("retry_at_most_every", Duration(5, 3600), "the longest pause between attempts (30s)"),
    )
)
METRICS = Section(
    (
        Key(
            "prometheus",
            # The file may come from anywhere: it must not name any other file of the node.
            Text("a path under /var/lib or /run that ends with .prom", _TEXTFILE),
            "a file for node_exporter's textfile collector (off)",
        ),
        Key("cloudwatch", Truth(), "lines of CloudWatch's embedded metric format (off)"),
        Key("namespace", Text("a namespace", r"[A-Za-z0-9_./#-]{1,255}"), "CloudWatch's (S3Mount)"),
    )
)
TOP = Section(
    (
        Key("version", Choice(("1",)), "the version of this format"),
        Key(
            "mounts",
            ListOf(Built(MOUNT, _entry)),
            "the mounts",
            required=True,
        ),
        Key("role", _ROLES, "what the node is (default: what ParallelCluster's files say)"),
        Key("mode", Choice(tuple(m.value for m in Mode)), "who starts mount-s3 (by role)"),
        Key("on_failure", _ON_FAILURE, "whether a bootstrap fails with a mount (by role)"),
        Key("when_busy", _WHEN_BUSY, "wait, lazy or fail: a mount that must change but is used"),
        Key("busy_deadline", Duration(0, 604800), "how long wait waits (1h)"),
        Key("refresh", Duration(10, 86400), "how often to ask the source for a new version (5m)"),
        Key("memory_percent", Number(1, 90), "the part of the node's memory for all mounts"),
        Key("bandwidth_gbps", Number(1, 10000), "the node's bandwidth, to be divided among them"),
        Key("health", HEALTH, "how often the agent looks and tries again"),
        Key("install", INSTALL, "where mount-s3 comes from"),
        Key("metrics", METRICS, "figures about the mounts, for those who collect them"),
        Key("environment", MapOf(_PLAIN_VALUE, ENVIRONMENT), "variables for mount-s3"),
    )
)


def _configuration(values: dict[str, Any]) -> Configuration:
    install = values.get("install", {})
    plain = ("busy_deadline", "refresh", "memory_percent", "bandwidth_gbps", "environment")
    configuration = Configuration(
        entries=values["mounts"],
        role=Role(values["role"]) if "role" in values else None,
        mode=Mode(values["mode"]) if "mode" in values else None,
        on_failure=OnFailure(values["on_failure"]) if "on_failure" in values else None,
        when_busy=WhenBusy(values.get("when_busy", "wait")),
        install=Install(
            install.get("url"),
            install.get("version"),
            tuple(each.upper() for each in install.get("fingerprints", ())),
        ),
        metrics=Metrics(**values.get("metrics", {})),
        **{name: values[name] for name in plain if name in values},
        **values.get("health", {}),
    )
    queues = {queue for entry in configuration.entries for queue in entry.queues}
    if len(queues) > _MOST_QUEUES:
        raise AgentError(
            Problem.CONFIG_INVALID,
            f"there are {len(queues)} different queues, but at most {_MOST_QUEUES} may be named",
            hint="a cluster has at most 60 queues and login pools",
        )
    for role in Role:
        for queue in sorted(queues) or [""]:
            configuration.mounts(role, queue)
    return configuration


def read_configuration(node: Node, source: Source) -> Configuration:
    """The configuration that a file's tree means; every error names the place in the file."""
    configuration: Configuration = Built(TOP, _configuration).read(node, source)
    return configuration
