# SPDX-License-Identifier: Apache-2.0
"""What `helm test` runs, in the operator's image. Says what works; ends with 1 if something does not in a minute."""

import datetime
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

API_SERVER = "https://kubernetes.default.svc"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SECONDS = 60.0


def api(path: str) -> Any:
    """What the API server answers to a GET."""
    with open(f"{ACCOUNT}/token", encoding="utf-8") as file:
        request = urllib.request.Request(API_SERVER + path, headers={"Authorization": f"Bearer {file.read()}"})  # noqa: S310
    context = ssl.create_default_context(cafile=f"{ACCOUNT}/ca.crt")
    with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def custom_resources() -> str:
    """The API server serves our kinds."""
    served = {resource["name"] for resource in api("/apis/kubeagents.dev/v1alpha1")["resources"]}
    missing = {"agents", "centralagents", "taskqueues"} - served
    if missing:
        raise ValueError(f"the API server does not serve {', '.join(sorted(missing))}")
    return "the API server serves agents, centralagents and taskqueues"


def ready() -> str:
    """A replica that is ready answers: it has listed all that it watches."""
    with urllib.request.urlopen(f"{os.environ['OPERATOR_URL']}/readyz", timeout=10) as answer:  # noqa: S310
        return f"the operator is ready ({answer.status})"


def in_charge() -> str:
    """A replica holds the Lease, and renews it."""
    where = f"/apis/coordination.k8s.io/v1/namespaces/{os.environ['OPERATOR_NAMESPACE']}/leases/kubeagents-operator"
    lease = api(where)["spec"]
    if not lease.get("holderIdentity"):
        raise ValueError("nobody holds the Lease kubeagents-operator")
    renewed = datetime.datetime.fromisoformat(lease["renewTime"])
    age = (datetime.datetime.now(datetime.UTC) - renewed).total_seconds()
    if age > lease["leaseDurationSeconds"]:
        raise ValueError(
            f"{lease['holderIdentity']} holds the Lease kubeagents-operator, but has not renewed it for {age:.0f} s"
        )
    return f"{lease['holderIdentity']} is in charge"


def passes(check: Callable[[], str], deadline: float) -> bool:
    """Whether the check succeeds in time."""
    while True:
        try:
            print("ok:", check(), flush=True)
            return True
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > deadline:
                reason = f" ({error.read().decode()[:500]})" if isinstance(error, urllib.error.HTTPError) else ""
                print(f"FAILED: {check.__doc__} {error}{reason}", flush=True)
                return False
            time.sleep(1)


deadline = time.monotonic() + SECONDS
sys.exit(0 if all([passes(check, deadline) for check in (custom_resources, ready, in_charge)]) else 1)
