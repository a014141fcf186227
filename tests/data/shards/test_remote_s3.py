"""Packed images in an S3 bucket: moto's server on loopback, behind a failing proxy."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.shards.faulty import Faults, FaultyServer, forward_to, serving
from tests.data.shards.remote_sets import images, options, packed
from tests.data.shards.test_remote import FAULTS, read_all, restarted

from reslab.data.location import Url
from reslab.data.shards.reader import open_remote_part, remote_parts

s3fs = pytest.importorskip("s3fs", reason="the extra `remote`")
BUCKET = "pictures"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """A bucket with a packed set in imagenet/, behind a failing proxy."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket=BUCKET)
    for path in packed(images(300), tmp_path / "set").iterdir():
        client.put_object(Bucket=BUCKET, Key=f"imagenet/{path.name}", Body=path.read_bytes())
    with serving(forward_to(host, port), Faults(seed=5)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        s3fs.S3FileSystem.clear_instance_cache()  # it may have another test's endpoint
        yield server
    moto.stop()


def test_every_image_from_a_failing_bucket_equals_the_original(
    bucket: FaultyServer, tmp_path: Path
) -> None:
    url, far = (
        Url(f"s3://{BUCKET}/imagenet"),
        options(tmp_path / "cache", on_trouble=lambda text: None),
    )
    bucket.faults = Faults(**FAULTS, seed=4)
    assert remote_parts(url, far) == (None, None)
    opened = open_remote_part(url, far)
    assert restarted(bucket, opened) == images(300)
    assert bucket.faults.seen.keys() == {"refused", "short", "corrupt", "restart"}
    requests = bucket.faults.requests
    assert requests > 250
    assert read_all(opened) == images(300)
    assert bucket.faults.requests == requests


def test_a_missing_bucket_or_folder_and_missing_credentials(
    bucket: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (f"s3://{BUCKET}/other", "s3://no-such-bucket/imagenet"):
        with pytest.raises(ValueError, match=r"has no packed images.*no such file"):
            remote_parts(Url(place), options(tmp_path / "cache"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ValueError, match="no credentials found"):
        remote_parts(Url(f"s3://{BUCKET}/imagenet"), options(tmp_path / "cache"))
