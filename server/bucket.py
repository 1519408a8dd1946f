"""Make the bucket of MLFLOW_ARTIFACTS_DESTINATION, if it is not there; wait for its storage."""

import os
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

WAIT = 30  # seconds
KNOWN = ("BucketAlreadyExists", "BucketAlreadyOwnedByYou")

storage = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
until = time.monotonic() + WAIT
while True:
    try:
        storage.create_bucket(
            Bucket=os.environ["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://")
        )
    except EndpointConnectionError:
        if time.monotonic() > until:
            raise
        time.sleep(1)
        continue
    except ClientError as error:
        if error.response["Error"]["Code"] not in KNOWN:
            raise
    break
