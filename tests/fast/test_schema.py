"""The JSON Schema for editors agrees with what reads the file: what one takes, the other takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3mount_agent.config import config_file, keys, yaml_text
from s3mount_agent.config.document import Items, Node, Scalar, Table
from s3mount_agent.config.schema import json_schema
from s3mount_agent.core.errors import AgentError
from s3mount_agent.core.node_roles import Mode, OnFailure, Role
from s3mount_agent.mountpoint.flags import FLAGS, Flag

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json_schema(keys.TOP, "a configuration", keys.SCHEMA_ID)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def value_of(node: Node) -> Any:
    """What an editor makes of YAML: version 1.2, in which ``on`` and ``yes`` are texts."""
    if isinstance(node, Table):
        return {key.text: value_of(value) for key, value in node}
    if isinstance(node, Items):
        return [value_of(item) for item in node.items]
    assert isinstance(node, Scalar)
    readers: dict[str, Callable[[str], Any]] = {
        "bool": lambda text: {"true": True, "false": False}.get(text.lower(), text),
        "int": int,
        "float": float,
        "null": lambda text: None,
        "str": str,
    }
    try:
        return readers[node.kind](node.text)
    except ValueError:  # 1.1's 0x1f and 1:30
        return node.text


def complaints(text: str) -> list[str]:
    tree = value_of(yaml_text.parse(text, "x"))
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(tree)]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_that_is_shipped_is_this_one() -> None:
    shipped = json.loads((DOCS / "s3mount.schema.json").read_text(encoding="utf-8"))
    assert {**shipped, "title": ""} == {**SCHEMA, "title": ""}


def test_the_example_of_the_documents_agrees_with_the_schema() -> None:
    assert complaints((DOCS / "s3mount.example.yaml").read_text(encoding="utf-8")) == []


def test_the_example_passes_where_yaml_is_version_1_1() -> None:
    """PyYAML and most of what is built on it take a bare ``on`` for a boolean."""
    text = (DOCS / "s3mount.example.yaml").read_text(encoding="utf-8")
    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []
    # Read, changed and written by such a program it is still good, for us and for the schema.
    again = yaml.safe_dump(yaml.safe_load(text.replace('"on":', "on:")))
    assert "true: compute" in again
    assert config_file.parse(again, "x").rows == config_file.parse(text, "x").rows
    assert list(VALIDATOR.iter_errors(json.loads(json.dumps(yaml.safe_load(again))))) == []


def test_on_stands_once_however_it_is_written() -> None:
    row = "bucket: my-bucket, directory: /x/y, on: head"
    with pytest.raises(AgentError, match="'on' is given twice, once as 'true'"):
        config_file.parse(f"mounts: [{{{row}, true: head}}]", "x")


def test_the_schema_has_a_name_of_its_own() -> None:
    assert SCHEMA["$id"] == "urn:s3mount-agent:configuration:1"


ROW = "bucket: my-bucket, directory: /x/y"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"mounts: [{{{ROW}}}, {{{ROW}, wieght: 5}}]", "$.mounts[1]"),
        (f"mounts: [{{{ROW}, weight: 0}}]", "$.mounts[0].weight"),
        (f"mounts: {{{ROW}, weight: 0}}", "$.mounts.weight"),
        (f"mounts: [{{{ROW}, on: [head, haed]}}]", "$.mounts[0].on[1]"),
        (f"mounts: [{{{ROW}, on: haed}}]", "$.mounts[0].on"),
        (f"mounts: [{{{ROW}, uid: true}}]", "$.mounts[0].uid"),
        (f"mounts: [{{{ROW}, roles: {{head: {{cache: [x]}}}}}}]", "$.mounts[0].roles.head.cache"),
        ("mounts: [{bucket: a b, directory: /x/y}]", "$.mounts[0].bucket"),
        ("mounts: [{bucket: ab, directory: /x/y}]", "$.mounts[0].bucket"),
        ("mounts: [{bucket: my-bucket, directory: x/y}]", "$.mounts[0].directory"),
        ("mounts: [{bucket: my-bucket, directory: /}]", "$.mounts[0].directory"),
        ("mounts: [{bucket: my-bucket, directory: /x/../y}]", "$.mounts[0].directory"),
        ("mounts: []\nhealth: {look_every: 5w}", "$.health.look_every"),
    ],
)
def test_an_editor_points_at_the_key(text: str, place: str) -> None:
    with pytest.raises(AgentError):
        config_file.parse(text, "x")
    (complaint,) = complaints(text)
    assert complaint.startswith(f"{place}: ")
    assert "under any of the given" not in complaint


def test_every_key_is_explained_in_the_schema() -> None:
    def explained(schema: Any) -> None:
        for part in schema.get("properties", {}).values():
            assert isinstance(part, dict)
            explained(part)

    for section in (keys.TOP, keys.MOUNT, keys.HEALTH, keys.INSTALL, keys.METRICS):
        for key in section.keys:
            shown = section.schema()["properties"][key.name]
            assert shown["description"] == key.about
            assert key.about
    explained(SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmounts: []",
        "version: '1'\nmounts: []",
        "mounts: {bucket: my-bucket, directory: /x/y}",
        "mounts: [{bucket: 12345, directory: /x/y}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, weight: '5', uid: '5', gid: 5}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, on: head, queues: 7, owner: 1000}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, on: [head], queues: [p1, 7, true]}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, dir_mode: 0755, upload_checksums: off}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, cache: false, bind: [a, 5]}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, roles: {head: {options: ''}, login: {}}}]",
        "mounts: []\nmemory_percent: '50'\nrefresh: 90\nbusy_deadline: 1 h",
        "mounts: []\nenvironment: {AWS_MAX_ATTEMPTS: 5, AWS_USE_FIPS_ENDPOINT: true}",
        "mounts: []\ninstall: {version: latest, fuse_conf: add}",
        "mounts: []\nmetrics: {prometheus: /run/x/s3.prom, cloudwatch: true, namespace: a/b}",
        "mounts: []\nmetrics: {}\nhealth: {look_every: 5, hung_after: 10, check_s3_every: 24h}",
    ],
)
def test_an_editor_does_not_complain_of_what_is_good(text: str) -> None:
    config_file.parse(text, "x")
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "mounts: []\nrefersh: 5m",
        "mounts: [{bucket: my-bucket}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, quues: p1}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, read_only: 'yes'}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, roles: {haed: {}}}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, roles: {head: {bucket: x}}}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, on: all}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, weight: 0}]",
        "mounts: [{bucket: my-bucket, directory: /x/y, cache: true}]",
        "mounts: []\nmemory_percent: 91",
        "mounts: []\nrefresh: 5w",
        "mounts: []\nenvironment: {LD_PRELOAD: x}",
        "mounts: []\ninstall: {fuse_conf: mine}",
        "mounts: []\nmetrics: {prometheus: /etc/cron.d/x.prom}",
        "mounts: []\nmetrics: {prometheus: /run/../etc/x.prom}",
        "mounts: []\nmetrics: {prometheus: /run/x}",
        "mounts: []\nmetrics: {cloudwatch: sometimes}",
        "mounts: []\nmetrics: {namespace: a b}",
        "mounts: []\nhealth: {retry_at_mots_every: 30s}",
    ],
)
def test_an_editor_complains_of_what_is_wrong(text: str) -> None:
    with pytest.raises(AgentError):
        config_file.parse(text, "x")
    assert complaints(text)


# Documents made of the tables of keys: mostly good, some not.
WORD = st.sampled_from(["p1", "a-b", "7", "true", "x" * 64, "_", "1.5", "0755", "on", "", "a b"])
DIGITS = st.one_of(st.integers(-1, 2**33).map(str), st.sampled_from(["1", "512", "007", "1_0"]))
# Not yes and no: the reader takes them, but to an editor (YAML 1.2) they are texts.
BOOLEANS = st.sampled_from(["true", "false", "True", "FALSE", "'true'", "1"])
SAMPLES = {
    "prefix": ["a/", "'a b/'", "a", "é/"],
    "region": ["eu-west-1", "7", "no"],
    "endpoint_url": ["https://s3.local", "x"],
    "expected_bucket_owner": ["123456789012", "'000000000001'"],
    "sse": ["aws:kms", "AES256"],
    "sse_kms_key_id": ["arn:aws:kms:x:1:key/y"],
    "upload_checksums": ["crc32c", "off"],
    "bucket_type": ["directory"],
    "metadata_ttl": ["60", "indefinite", "minimal"],
    "negative_metadata_ttl": ["60", "indefinite"],
    "dir_mode": ["0755", "'0755'", "640", "0o755"],
    "file_mode": ["0644", "644"],
}


def quoted(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return words.flatmap(lambda word: st.sampled_from([word or "''", f"'{word}'"]))


def listed(words: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return words | st.lists(words, max_size=3).map(lambda items: f"[{', '.join(items)}]")


def flag_values(name: str, flag: Flag) -> st.SearchStrategy[str]:
    if flag.value is None:
        return BOOLEANS
    if name in SAMPLES:
        values = st.sampled_from(SAMPLES[name])
    elif flag.value.least is not None:
        values = quoted(DIGITS)
    else:
        values = quoted(WORD)
    values = values | st.just("false")
    return listed(values) if flag.repeatable else values


def mapping(fields: dict[str, st.SearchStrategy[str]], **must: str) -> st.SearchStrategy[str]:
    always = {name: st.just(value) for name, value in must.items()}
    few = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
    chosen = few.flatmap(lambda names: st.fixed_dictionaries({n: fields[n] for n in names}))
    return st.tuples(st.fixed_dictionaries(always), chosen).map(
        lambda both: "{" + ", ".join(f"{k}: {v}" for k, v in {**both[0], **both[1]}.items()) + "}"
    )


FLAG_FIELDS = {
    name.replace("-", "_"): flag_values(name.replace("-", "_"), flag)
    for name, flag in FLAGS.items()
    if not flag.reserved
}
LAYER_FIELDS = {
    **FLAG_FIELDS,
    "options": st.sampled_from(["''", "--read-only", "'--uid 7 -d'", "-d"]),
}
ROLES = quoted(st.sampled_from([role.value for role in Role]))
CHOICES = {
    "when_busy": quoted(st.sampled_from(["wait", "lazy", "fail", "no"])),
    "on_failure": quoted(st.sampled_from([each.value for each in OnFailure])),
}
MOUNT_FIELDS = {
    **LAYER_FIELDS,
    **CHOICES,
    "on": listed(ROLES),
    "queues": listed(quoted(WORD)),
    "roles": mapping({role.value: mapping(LAYER_FIELDS) for role in Role}),
    "owner": quoted(WORD),
    "weight": quoted(DIGITS),
}
TIMES = quoted(st.sampled_from(["10", "90s", "5m", "2 h", "0", "1d", "010"]))
HEALTH_FIELDS = dict.fromkeys(
    ("look_every", "check_s3_every", "hung_after", "retry_at_most_every"), TIMES
)
METRICS_FIELDS = {
    "prometheus": st.sampled_from(
        ["/var/lib/node_exporter/s3mount.prom", "/run/s3.prom", "/etc/s3.prom", "/run/../x.prom"]
    ),
    "cloudwatch": BOOLEANS,
    "namespace": quoted(st.sampled_from(["S3Mount", "a/b#c", "7", "true", "a b", ""])),
}
TOP_FIELDS = {
    **CHOICES,
    "version": st.sampled_from(["1", "'1'", "2"]),
    "role": ROLES,
    "mode": quoted(st.sampled_from([mode.value for mode in Mode])),
    "busy_deadline": TIMES,
    "refresh": TIMES,
    "memory_percent": quoted(st.integers(0, 100).map(str)),
    "bandwidth_gbps": quoted(DIGITS),
    "health": mapping(HEALTH_FIELDS),
    "metrics": mapping(METRICS_FIELDS),
    "install": mapping(
        {
            "source": st.sampled_from(["official", "s3://bucket/x", "/x", "https://x", "x"]),
            "url": st.sampled_from(["https://mirror.example.org/x", "x"]),
            "version": quoted(st.sampled_from(["1.2.3", "latest", "present", "1.2"])),
            "fuse_conf": st.sampled_from(["add", "leave", "x"]),
        }
    ),
    "environment": mapping({name: quoted(WORD | DIGITS) for name in keys.ENVIRONMENT.words}),
}
BUCKETS = st.sampled_from(["my-bucket", "s3://my-bucket/a/", "12345", "'12345'", "B"])
MOUNTS = BUCKETS.flatmap(lambda b: mapping(MOUNT_FIELDS, bucket=b, directory="/mnt/s3"))
DOCUMENTS = listed(MOUNTS).flatmap(lambda mounts: mapping(TOP_FIELDS, mounts=mounts))


def test_the_documents_below_have_every_key() -> None:
    assert TOP_FIELDS.keys() | {"mounts"} == {key.name for key in keys.TOP.keys}
    assert MOUNT_FIELDS.keys() | {"bucket", "directory"} == {key.name for key in keys.MOUNT.keys}
    assert HEALTH_FIELDS.keys() == {key.name for key in keys.HEALTH.keys}
    assert METRICS_FIELDS.keys() == {key.name for key in keys.METRICS.keys}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DOCUMENTS)
def test_what_the_reader_accepts_the_schema_accepts(text: str) -> None:
    try:
        config_file.parse(text, "x")
    except AgentError:
        return
    assert complaints(text) == []
