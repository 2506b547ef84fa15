"""The keys of a configuration file: one row each, with its kind and one sentence about it.

Keys for mount-s3's flags come from mountpoint/flags.py, defaults from config/configuration.py.
"""

from __future__ import annotations

from typing import Any

from s3mount_agent.config.configuration import (
    Configuration,
    Layer,
    Metrics,
    Row,
    WhenBusy,
    conflicts,
)
from s3mount_agent.config.document import Items, Node, Scalar, Source, Table
from s3mount_agent.config.schema import Built, Key, ListOf, MapOf, Section, flag_keys
from s3mount_agent.config.value_kinds import (
    Choice,
    Duration,
    Number,
    Parsed,
    Text,
    Truth,
    located,
    one_of,
)
from s3mount_agent.core.buckets import Bucket, parse_bucket
from s3mount_agent.core.directory_rules import may_be_read, parse_directory
from s3mount_agent.core.errors import AgentError, Problem
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.core.versions import SOURCE_PATTERN, VERSION_PATTERN, FuseConf, Install
from s3mount_agent.mountpoint.flag_check import parse_options

# As ParallelCluster calls them, in its node types and in its configuration.
_ROLES = one_of(
    Role,
    {
        "HeadNode": "head",
        "ComputeFleet": "compute",
        "ComputeNode": "compute",
        "SlurmQueues": "compute",
        "LoginNode": "login",
        "LoginNodes": "login",
    },
)
_WHEN_BUSY = one_of(WhenBusy)
_ON_FAILURE = one_of(OnFailure)
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
_MOST_QUEUES = 100
_NOT_HERE = (
    "{} is a secret, and this file is none: all nodes, and all who may read its source, read it",
    "put it into /etc/s3mount-agent/environment on the node, or give the node's role access",
)
_SECRETS = {
    name: (_NOT_HERE[0].format(name), _NOT_HERE[1])
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_BEARER_TOKEN",
    )
}
# A URN: it stands for the schema of this version of the format, wherever it is kept.
SCHEMA_ID = "urn:s3mount-agent:configuration:1"
# What an editor can check of a bucket and a directory: their readers know more.
_BUCKET = r"(?:s3://)?[0-9A-Za-z][0-9A-Za-z._-]{2,254}(?:/.*)?|arn:aws[a-z-]*:s3.*"
_DIRECTORY = r"/(?!(?:.*/)?\.\.?(?:/|$)).*[^/].*"
_PLAIN_VALUE = Text("a value in one line of printable ASCII", r"[ -~]{0,1000}")


class _FilePath(Text):
    """A file that a configuration may have root read."""

    def read(self, node: Node, source: Source) -> str:
        """The path, or nothing."""
        path = super().read(node, source)
        if path and not may_be_read(path):
            source.refuse(node.mark, f"{path} is no file that this configuration may name")
        return path


class _Version(Choice):
    """The version of the format, with a sentence of its own for any other."""

    def read(self, node: Node, source: Source) -> str:
        """The version."""
        if isinstance(node, Scalar) and node.text.isdecimal() and node.text not in self.words:
            source.refuse(
                node.mark,
                f"this agent knows version 1 of this format, but not version {node.text[:20]}",
                hint="write version: 1, or install the s3mount-agent that this file is for",
            )
        return super().read(node, source)


_OPTIONS = (
    Key(
        "options",
        Parsed("mount-s3's options", parse_options),
        "mount-s3's options in one text",
        default="none",
        aka=("args", "flags", "arguments", "mount_options", "mount-options", "opts"),
    ),
    *flag_keys(),
)


def _layer(values: dict[str, Any]) -> Layer:
    flags = {name.replace("_", "-"): value for name, value in values.items() if name != "options"}
    return Layer(values.get("options"), flags)


_OWN_KEYS = (
    Key(
        "bucket",
        Parsed("a bucket", parse_bucket, _BUCKET),
        "a bucket, an access point (alias or ARN), or s3://bucket/prefix/",
        required=True,
        aka=("name", "bucket_name", "bucketName", "BucketName", "source", "s3", "uri", "url"),
    ),
    Key(
        "directory",
        Parsed("a directory", parse_directory, _DIRECTORY),
        "where to mount it",
        required=True,
        aka=(
            "path",
            "dir",
            "mountpoint",
            "mount_point",
            "mount-point",
            "mount_path",
            "mount_dir",
            "MountDir",
            "target",
        ),
    ),
    Key("on", ListOf(_ROLES), "the roles of the nodes that get it", default="all"),
    Key(
        "queues",
        ListOf(_NAME),
        "the queues or login pools whose nodes get it",
        default="all",
        aka=("queue", "partition", "partitions", "pools"),
    ),
    Key(
        "roles",
        MapOf(Built(Section(_OPTIONS), _layer), _ROLES),
        "options that are different on a role",
        into="by_role",
        default="none",
    ),
    Key(
        "owner",
        _NAME,
        "the user whose files they seem to be",
        default="the cluster's user",
        aka=("user",),
    ),
    Key("weight", Number(1, 1000), "its share of memory and bandwidth beside the others"),
    Key(
        "when_busy",
        _WHEN_BUSY,
        "what to do if it must change while it is in use",
        default="the file's",
    ),
    Key("on_failure", _ON_FAILURE, "whether a bootstrap fails with it", default="the file's"),
)

MOUNT = Section((*_OWN_KEYS, *_OPTIONS), of=Row)


def _row(values: dict[str, Any]) -> Row:
    own = {key.into or key.name for key in _OWN_KEYS}
    given = {name: value for name, value in values.items() if name in own}
    layer = _layer({name: value for name, value in values.items() if name not in own})
    return Row(**given, base=layer)


def _known(values: dict[str, Any]) -> Row | None:
    """Of a row in which something is wrong, what can be held against other rows: its directory and
    its nodes, and its options if all of them could be read."""
    unread = {name for name, value in values.items() if _is_unread(value)}
    if "directory" not in values or unread & {"directory", "on", "queues", ""}:
        return None
    known = {**values, "bucket": values.get("bucket") or Bucket("")}
    if unread - {"bucket", "owner", "weight", "when_busy", "on_failure"}:
        place = ("bucket", "directory", "on", "queues")
        return _row({name: value for name, value in known.items() if name in place})
    return _row({name: value for name, value in known.items() if value is not None})


def _is_unread(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return value is None or (isinstance(value, (dict, tuple)) and None in parts)


# A folder with AWS's layout. What lies there is installed only if it is signed by a key that is
# pinned on the node.
SOURCE = Text("official, or a place (https://…, s3://bucket/prefix, /path)", SOURCE_PATTERN)


def _install(values: dict[str, Any]) -> Install:
    url = values.pop("url", None)
    if url is not None and values.setdefault("source", url) != url:
        raise AgentError(
            Problem.CONFIG_INVALID,
            "install has a source and another url, which is an earlier word for source",
            hint="keep source, and take url away",
        )
    return Install(**values)


INSTALL = Section(
    (
        Key(
            "version",
            Text("a version (1.24.0), latest or present", VERSION_PATTERN),
            "which mount-s3 the nodes have",
            default="what is there, or else the one that this agent was tested with",
        ),
        Key(
            "source",
            SOURCE,
            "where its releases are, in AWS's layout",
            default="`official`",
            aka=("mirror", "origin", "from"),
        ),
        Key("url", SOURCE, "another word for source", default="that of source"),
        Key(
            "family",
            Choice(("deb", "rpm")),
            "the kind of packages of a system that the agent does not know (`--assume-family`)",
            default="none: it is refused",
        ),
        Key(
            "spread",
            Duration(0, 600),
            "over how long nodes that boot together begin to download, for a mirror that cannot "
            "serve all of them at once ([scale](scale.md))",
        ),
        Key(
            "fuse_conf",
            one_of(FuseConf),
            "whether user_allow_other is added to /etc/fuse.conf, which root's mounts do not need",
        ),
    ),
    of=Install,
    # Whoever may write this file could install anything as root with it.
    never={
        "fingerprints": "name the keys of your own packages on the node itself, as "
        "S3MOUNT_RELEASE_FINGERPRINTS in /etc/s3mount-agent/environment"
    },
)
HEALTH = Section(
    (
        Key("look_every", Duration(5, 3600), "how often to ask whether each mount answers"),
        Key("check_s3_every", Duration(5, 86400), "how often to list a mount, as S3 allows"),
        Key("hung_after", Duration(10, 3600), "the silence after which a mount is ended"),
        Key("retry_at_most_every", Duration(5, 3600), "the longest pause between attempts"),
    ),
    of=Configuration,
    flat=True,
)
METRICS = Section(
    (
        Key(
            "prometheus",
            # The file may come from anywhere: it must not name any other file of the node.
            Text("a path under /var/lib or /run that ends with .prom", _TEXTFILE),
            "a file for node_exporter's textfile collector",
            default="off",
        ),
        Key("cloudwatch", Truth(), "lines of CloudWatch's embedded metric format"),
        Key("namespace", Text("a namespace", r"[A-Za-z0-9_./#-]{1,255}"), "CloudWatch's"),
    ),
    of=Metrics,
)
TOP = Section(
    (
        Key("version", _Version(("1",)), "the version of this format", default="`1`"),
        Key(
            "mounts",
            ListOf(
                Built(MOUNT, _row, "mount", _known),
                empty="no mounts are named here: write [] if nothing is to be mounted",
            ),
            "the mounts",
            required=True,
            into="rows",
        ),
        Key("role", _ROLES, "what the node is", default="what ParallelCluster's files say"),
        Key("mode", one_of(Mode), "who starts mount-s3", default="by role"),
        Key("on_failure", _ON_FAILURE, "whether a bootstrap fails with a mount", default="by role"),
        Key("when_busy", _WHEN_BUSY, "what to do about a mount that must change but is used"),
        Key("busy_deadline", Duration(0, 604800), "how long wait waits"),
        Key("refresh", Duration(10, 86400), "how often to ask the source for a new version"),
        Key(
            "memory_percent",
            Number(1, 90),
            "the part of the node's memory for all mounts",
            default="see [shares](#shares)",
        ),
        Key(
            "bandwidth_gbps",
            Number(1, 10000),
            "the node's bandwidth, to be divided among them",
            default="not limited",
        ),
        Key("health", HEALTH, "how often the agent looks and tries again", default="below"),
        Key(
            "install",
            Built(INSTALL, _install),
            "which mount-s3, and where it comes from",
            default="below",
        ),
        Key(
            "metrics",
            Built(METRICS, lambda values: Metrics(**values)),
            "figures about the mounts, for those who collect them",
            default="below",
        ),
        Key(
            "environment",
            MapOf(
                _PLAIN_VALUE,
                ENVIRONMENT,
                _SECRETS,
                {"AWS_CA_BUNDLE": _FilePath("the absolute path of a file", r"(?:/[ -~]{0,999})?")},
            ),
            "variables for mount-s3",
            default="none",
            aka=("env",),
        ),
    ),
    of=Configuration,
)


def _configuration(values: dict[str, Any]) -> Configuration:
    values.pop("version", None)
    configuration = Configuration(**values)
    queues = configuration.queues()
    if len(queues) > _MOST_QUEUES:
        raise AgentError(
            Problem.CONFIG_INVALID,
            f"there are {len(queues)} different queues, but at most {_MOST_QUEUES} may be named",
            hint="a cluster has at most 60 queues and login pools",
        )
    return configuration


def read_configuration(node: Node, source: Source) -> Configuration:
    """The configuration that a file's tree means; raises the first thing that is wrong, with all
    others in its company, each with its place in the file."""
    values = source.attempt(TOP.read, node, source) or {}
    mounts = node.get("mounts") if isinstance(node, Table) else None
    places = mounts.items if isinstance(mounts, Items) else (mounts or node,)
    for number, error in conflicts(values.get("rows") or ()):
        source.keep(source.located(places[number].mark, error))
    source.settle()
    configuration: Configuration = located(lambda: _configuration(values), node, source)
    return configuration
