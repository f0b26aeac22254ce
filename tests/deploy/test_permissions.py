"""The rights that the page names: a job with these alone runs to its end, and one with less says what it lacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt
import pytest
from test_images import DEPLOY

from pilc_stream.errors import StorageError
from pilc_stream.records.orphans import delete_orphans, find_orphans
from pilc_stream.storage import RetryPolicy, Store
from workers.job import run_job
from workers.settings import JobSettings

POLICY = json.loads((DEPLOY / "s3-policy.json").read_text())
SOURCE, TARGET = "s3://raw-images/photos", "s3://compressed-images/photos"

Options = dict[str, Any]
WithRights = Callable[[dict[str, Any]], Options]


@pytest.fixture
def with_rights(s3_server: Any, photo_like: Callable[..., npt.NDArray[Any]], file_of: Any) -> Iterator[WithRights]:
    """Gives the storage options of a user with a policy, on a server that from then on refuses everything else."""
    boto3 = pytest.importorskip("boto3")
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    admin = Store.open(SOURCE, s3_server.options)
    for bucket in ("raw-images", "compressed-images"):
        s3_server.make_bucket(bucket)
    for index in range(6):
        admin.put(f"{index}.bmp", file_of(photo_like(17, 25, seed=index), "BMP"))
    before = settings.INITIAL_NO_AUTH_ACTION_COUNT
    iam = boto3.client(
        "iam",
        region_name="us-east-1",
        endpoint_url=s3_server.endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def give(policy: dict[str, Any]) -> Options:
        iam.create_user(UserName="job")
        iam.put_user_policy(UserName="job", PolicyName="job", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="job")["AccessKey"]
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        ActionAuthenticatorMixin.request_count = 0
        return {**s3_server.options, "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}

    yield give
    settings.INITIAL_NO_AUTH_ACTION_COUNT = before
    iam.delete_user_policy(UserName="job", PolicyName="job")
    for key in iam.list_access_keys(UserName="job")["AccessKeyMetadata"]:
        iam.delete_access_key(UserName="job", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="job")
    for url in (SOURCE, TARGET):
        store = Store.open(url, s3_server.options)
        for path in store.list():
            store.delete(path)
        s3fs = pytest.importorskip("s3fs")
        s3fs.S3FileSystem(**s3_server.options).rmdir(url.split("/")[2])


def settings_for(options: Options, **fields: Any) -> JobSettings:
    return JobSettings(
        sources=(SOURCE,),
        destination=TARGET,
        profile="raw",
        workers=0,
        shard_size=3000,
        storage_options=options,
        **fields,
    )


def without(*actions: str) -> dict[str, Any]:
    """The policy, less some rights."""
    statements = [
        {**statement, "Action": [action for action in statement["Action"] if action not in actions]}
        for statement in POLICY["Statement"]
    ]
    return {**POLICY, "Statement": [statement for statement in statements if statement["Action"]]}


def test_a_job_needs_no_more_than_the_policy_gives(with_rights: WithRights) -> None:
    options = with_rights(POLICY)
    assert run_job(settings_for(options)).totals.images == 6
    assert run_job(settings_for(options, on_existing="overwrite")).totals.images == 6
    store = Store.open(TARGET, options)
    store.put("data/part-000009-0123456789ab.parquet", b"of a job that was killed")
    orphans = find_orphans(store)
    assert [orphan.path for orphan in orphans] == ["data/part-000009-0123456789ab.parquet"]
    delete_orphans(store, orphans)
    assert find_orphans(store) == []


def test_the_sources_cannot_be_written(with_rights: WithRights) -> None:
    source = Store.open(SOURCE, with_rights(POLICY), RetryPolicy(attempts=1))
    with pytest.raises(StorageError, match="permission is denied"):
        source.put("0.bmp", b"something else")
    with pytest.raises(StorageError, match="permission is denied"):
        source.delete("0.bmp")


def test_a_read_only_destination_is_said_before_anything_is_made(with_rights: WithRights) -> None:
    options = with_rights(without("s3:PutObject"))
    with pytest.raises(StorageError, match=r"_pilc/job\.json: cannot create it: permission is denied"):
        run_job(settings_for(options))


def test_sources_that_may_not_be_read_are_said(with_rights: WithRights) -> None:
    policy = {**POLICY, "Statement": [each for each in POLICY["Statement"] if each["Sid"] != "ReadSources"]}
    with pytest.raises(StorageError, match=r"raw-images/photos: .*permission is denied"):
        run_job(settings_for(with_rights(policy)))
