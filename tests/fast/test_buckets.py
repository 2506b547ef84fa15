"""What may stand for a bucket."""

from __future__ import annotations

import pytest

from s3mount_agent.core.buckets import Bucket, parse_bucket
from s3mount_agent.core.errors import AgentError, Exit, Problem


@pytest.mark.parametrize(
    ("text", "name", "prefix"),
    [
        ("hpc-dev-mountpoint-sample-1", "hpc-dev-mountpoint-sample-1", ""),
        ("a.b.c", "a.b.c", ""),
        ("abc", "abc", ""),
        ("a" * 63, "a" * 63, ""),
        ("0numbers1", "0numbers1", ""),
        ("s3://my-bucket", "my-bucket", ""),
        ("s3://my-bucket/", "my-bucket", ""),
        ("s3://my-bucket/a/b c/", "my-bucket", "a/b c/"),
        ("s3://my-bucket/100%/$(x)/;/", "my-bucket", "100%/$(x)/;/"),
        ("data--use1-az4--x-s3", "data--use1-az4--x-s3", ""),
        ("my-ap-1234567890-s3alias", "my-ap-1234567890-s3alias", ""),
        (
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/data",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/data",
            "",
        ),
        (
            "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/data",
            "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/data",
            "",
        ),
        (
            "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap",
            "",
        ),
        (
            "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/data",
            "arn:aws:s3-object-lambda:eu-west-1:123456789012:accesspoint/data",
            "",
        ),
    ],
)
def test_a_bucket_is_read(text: str, name: str, prefix: str) -> None:
    assert parse_bucket(text) == Bucket(name, prefix)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ab",
        "a" * 256,
        "_starts-with-underscore",
        "-starts-with-dash",
        ".dots.",
        "two..dots",
        "192.168.0.1",
        "with space",
        "slash/inside",
        "--read-only",
        "https://bucket.s3.amazonaws.com",
        "s3://",
        "s3:///prefix/",
        "s3://B/prefix/",
        "s3://two..dots/prefix/",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/" + "a" * 255,
        "s3://bucket/no-final-slash",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/data",
        "arn:aws:s3:::my-bucket",
        "arn:aws:s3:eu-west-1:12345:accesspoint/data",
        "arn:aws:ec2:eu-west-1:123456789012:instance/i-1",
        "$(reboot)",
        "bucket;reboot",
        "bucket%n",
        "büçket",
    ],
)
def test_what_is_no_bucket_is_refused(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_bucket(text)
    assert caught.value.problem is Problem.BUCKET_INVALID
    assert caught.value.problem.exit_code is Exit.USAGE


@pytest.mark.parametrize(
    "text",
    ["bucket\n", "buck\x00et", "bucket\r", "\x1b[2Jbucket", "bucket\u2028x", "b\udcffcket", "a\tb"],
)
def test_control_characters_are_refused_as_text(text: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_bucket(text)
    assert caught.value.problem is Problem.ARGUMENT_NOT_TEXT
    assert caught.value.message.isprintable()
    caught.value.message.encode()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix/"),
        ("arn:aws:s3:::my-bucket", "my-bucket"),
        ("arn:aws:s3:::my-bucket/", "my-bucket"),
    ],
)
def test_near_misses_get_the_right_spelling_as_a_hint(text: str, hint: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_bucket(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "name", ["Lab_Archive.2013", "Upper-Case", "under_score", "ends-with-dash-", "A" * 255, "B-.a"]
)
@pytest.mark.parametrize("text", ["{}", "s3://{}/", "s3://{}/prefix/"])
def test_names_of_before_2018_are_taken(text: str, name: str) -> None:
    """The real mount-s3 takes 3 to 255 of [0-9a-zA-Z.-_]."""
    bucket = parse_bucket(text.format(name))
    assert (bucket.name, bucket.is_old) == (name, True)


@pytest.mark.parametrize(
    "text",
    ["my-bucket", "a.b.c", "s3://abc/", "arn:aws:s3:eu-west-1:123456789012:accesspoint/Data_x"],
)
def test_other_names_are_not_taken_for_old_ones(text: str) -> None:
    assert not parse_bucket(text).is_old


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ab", "its name has 2 characters, not 3 to 255"),
        ("", "its name has 0 characters, not 3 to 255"),
        ("x" * 256, "its name has 256 characters, not 3 to 255"),
        ("my bucket", "the character ' ' is in no bucket's name"),
        ("büçket", "the character 'ü' is in no bucket's name"),
        ("slash/inside", "the character '/' is in no bucket's name"),
        ("s3://a,b/", "the character ',' is in no bucket's name"),
        ("-bucket", "its name begins with '-', not with a letter or a digit"),
        ("two..dots", "its name has two dots in a row"),
        ("10.0.0.1", "its name is an IP address"),
        ("/mnt/s3", "it is a path"),
        ("https://b.s3.amazonaws.com/", "it is a URL; only s3:// may stand here"),
        ("s3://arn:aws:s3:x:123456789012:accesspoint/y/", "an ARN stands alone, without s3://"),
    ],
)
def test_the_rule_that_a_name_breaks_is_told(text: str, rule: str) -> None:
    with pytest.raises(AgentError) as caught:
        parse_bucket(text)
    assert caught.value.message.endswith(f" is not a bucket: {rule}")


@pytest.mark.parametrize("text", ["my-bucket", "s3://my-bucket/a/b/"])
def test_a_bucket_is_shown_as_it_stands_after_s3(text: str) -> None:
    assert str(parse_bucket(text)) == text.removeprefix("s3://")
